"""How an answer that declines begins, in twelve languages.

In each but English: an apology, that one cannot, and a word of helping; the last two alone; or a machine that says of itself what
it is.  Apologies and inabilities of other kinds, and those that somebody else reports, are ordinary text.
"""

import re
from typing import NamedTuple

GAP = r"[^.!?\n。！？]{0,60}?"
"""Less than a sentence; `~` in what follows, where a space stands for any white space."""
CLAUSE = r"[^.!?\n。！？,;:，、；：]{0,60}?"
"""Less than a clause: who cannot remember, and names somebody who helped, declines nothing."""


class Manner(NamedTuple):
    """Of one language, as alternatives."""

    sorry: str
    cannot: str
    """Empty where it is an ending of the word of helping."""
    helping: str
    machine: str
    begins: str = ""
    """What stands before the last two where there is no apology."""
    apart: bool = True
    """Whether words are written apart."""


ENGLISH = re.compile(
    r"""\W*(
    (i\s*am|i'm|we\s*are|we're|my\s+apologies|i\s+apologi[sz]e|sorry|unfortunately)\b[^.!?\n]{0,40}[,.;:—-]?\s*
      (but\s+)?(i|we)\s*('m\s+not\s+able|am\s+not\s+able|am\s+unable|'m\s+unable|can\s*no?t|can't|won't|will\s+not|must\s+decline|do\s+not\s+feel|don't\s+feel)
    | (i|we)\s*(can\s*no?t|can't|won't|will\s+not|am\s+unable\s+to|'m\s+unable\s+to|am\s+not\s+able\s+to|'m\s+not\s+able\s+to|must\s+decline)\s*
      (to\s+)?(help|assist|answer|provide|fulfil+|comply|continue|discuss|engage|generate|create|write|do\s+that|support|satisfy|complete)
    | as\s+an?\s+(ai|artificial|large\s+language|language\s+model)
    | i\s*('m|\s+am)\s+(just\s+|only\s+)?an?\s+(ai|artificial|large\s+language|language\s+model)
    )""",
    re.IGNORECASE | re.VERBOSE,
)  # fmt: skip

MANNERS = {
    "de": Manner(
        r"(es )?tut mir (sehr |wirklich )?leid|entschuldigung|entschuldige|entschuldigen sie|verzeihung|leider",
        r"(ich (kann|darf|werde)|(kann|darf|werde) ich)\b~\bnicht|ich bin nicht in der lage|bin ich nicht in der lage",
        r"(weiter)?helfen|zu helfen|behilflich|unterstützen|beantworten|erfüllen|nachkommen|bereitstellen|bereitzustellen",
        r"als (eine? )?(reines? )?(ki|künstliche intelligenz|(großes )?sprachmodell)\b~\b(kann|bin|habe|darf|werde) ich\b"
        r"|ich bin (nur |lediglich )?eine? (ki|künstliche intelligenz|(großes )?sprachmodell)\b",
    ),
    "fr": Manner(
        r"(je suis )?(vraiment |sincèrement )?désolée?|je m'excuse|toutes mes excuses|excusez-moi|malheureusement",
        r"je ne (peux|pourrai|puis)\b~\bpas|je ne suis (malheureusement )?pas (en mesure|capable|autorisée?)|je ne saurais|je refuse",
        r"aider|assister|répondre|fournir|satisfaire|accéder à|donner suite",
        r"en tant qu(e |')(ia|intelligence artificielle|(grand )?modèle de langage|assistant (ia|virtuel))\b~\bje\b"
        r"|je (ne )?suis (qu')?(une? )?(simple )?(ia|intelligence artificielle|(grand )?modèle de langage)\b",
    ),
    "es": Manner(
        r"lo siento|lo lamento|lamento|lamentablemente|disculpa|disculpe|perdón|perdona|desafortunadamente|por desgracia",
        r"no (puedo|podré|me es posible|estoy autorizad[oa]|soy capaz)",
        r"ayudar(te|le|lo|la|los)?|asistir(te|le)?|responder|contestar|proporcionar(te|le)?|cumplir con|atender",
        r"como (una? )?(ia|inteligencia artificial|modelo de lenguaje|asistente (de ia|virtual))\b~\b(puedo|tengo|soy|estoy)\b"
        r"|soy (solo |sólo )?una? (ia|inteligencia artificial|modelo de lenguaje)\b",
        "(yo )?",
    ),
    "it": Manner(
        r"mi dispiace|mi scuso|scusa|scusami|scusi|scusate|spiacente|purtroppo",
        r"non (posso|potrò|sono in grado|mi è possibile)",
        r"aiutar(e|ti|la|vi)|assister(e|ti|la|vi)|rispondere|fornir(e|ti|le|vi)|soddisfare|esaudire",
        r"(come|in quanto) (un')?(un )?(ia|intelligenza artificiale|modello (linguistico|di linguaggio))\b~\b(posso|ho|non sono)\b"
        r"|sono (solo |soltanto )?(un')?(un )?(ia|intelligenza artificiale|modello (linguistico|di linguaggio))\b",
    ),
    "pt": Manner(
        r"sinto muito|lamento|(me )?desculpe|desculpa|peço desculpas?|infelizmente",
        r"não (posso|poderei|consigo|sou capaz|estou autorizad[oa])",
        r"(te |lhe |o |a )?(ajudar|auxiliar)|ajudá-l[oa]|responder|fornecer|atender|cumprir",
        r"como (uma? )?(ia|inteligência artificial|modelo de linguagem|assistente (de ia|virtual))\b~\b(posso|tenho|sou|consigo)\b"
        r"|(eu )?sou (apenas |só )?uma? (ia|inteligência artificial|modelo de linguagem)\b",
        "(eu )?",
    ),
    "nl": Manner(
        r"het spijt (me|mij)|sorry|helaas|(mijn )?excuses|neem me niet kwalijk",
        r"(ik (kan|mag|zal)|(kan|mag|zal) ik)\b~\b(niet|geen)|ik ben niet in staat|ben ik niet in staat",
        r"(te )?helpen|(te )?beantwoorden|(te )?voldoen|assisteren|ondersteunen|verstrekken|hulp bieden",
        r"als (een )?(ai|kunstmatige intelligentie|(groot )?taalmodel)\b~\b(kan|ben|heb|mag) ik\b"
        r"|ik ben (slechts |maar )?een (ai|kunstmatige intelligentie|(groot )?taalmodel)\b",
    ),
    "pl": Manner(
        r"(bardzo )?przepraszam|przykro mi|niestety|wybacz|wybaczcie",
        r"nie (mogę|będę mógł|będę mogła|jestem w stanie|wolno mi)",
        r"(ci |panu |pani )?pomóc|odpowiedzieć|udzielić|spełnić|dostarczyć|zrealizować",
        r"jako (sztuczna inteligencja|(duży )?model językowy|asystent ai|ai)\b~\b(mogę|mam|jestem|posiadam)\b"
        r"|jestem (tylko |jedynie )?(sztuczną inteligencją|(dużym )?modelem językowym)\b",
    ),
    "ru": Manner(
        r"извини|извините|прости|простите|прошу прощения|к сожалению|мне (очень )?жаль|сожалею",
        r"не (могу|смогу|в состоянии|имею права)",
        r"(вам |тебе )?помочь|ответить|отвечать|предоставить|выполнить",
        r"как (ии|искусственный интеллект|(большая )?языковая модель)\b~, я\b"
        r"|я( —| -)? (всего лишь |просто |только )?(ии|искусственный интеллект|(большая )?языковая модель)\b",
        "(я )?",
    ),
    "zh": Manner(
        r"(很|非常|十分)?抱歉|对不起|對不起|不好意思|很遗憾|很遺憾",
        r"无法|無法|不能|没办法|沒辦法",
        r"帮助?[您你]|幫助?[您你]|[为為][您你]|提供|回答[这該该您你此]|协助|協助|满足[您你这该此]|滿足[您你這該此]",
        r"(作为|作為)(一个|一個|一名)?(大型)?(人工智能|人工智慧|ai|语言模型|語言模型)~我"
        r"|我(只|仅仅|僅僅)?是(一个|一個|一名)?(大型)?(人工智能|人工智慧|ai|语言模型|語言模型)",
        "(我|我们|我們)",
        apart=False,
    ),
    "ja": Manner(
        r"(大変|誠に)?申し訳(あり|ござい)ません|申し訳ないのですが|すみません|ごめんなさい|残念ながら|恐れ入りますが",
        "",
        r"(お答え|お手伝い|ご?回答|ご?提供|お応え|ご?対応|お力|サポート|支援|協力)(を|は|に)?((する|になる)こと[がは]|になれ)?"
        r"(でき(ません|かねます)|(いた|致)しかねます|ません)(?!と)",
        r"(ai|人工知能|(大規模)?言語モデル)(アシスタント)?(として|なので|ですので|であるため)(は)?、"
        r"|私は(ただの|単なる)?(ai|人工知能|(大規模)?言語モデル)(アシスタント)?(です|であり|なので|ですので)",
        "(その|この|それ|これ|そのような|このような|ご要望|ご質問|ご依頼)~",
        apart=False,
    ),
    "ko": Manner(
        r"(정말 |대단히 )?죄송(합니다|하지만|해요)|미안(합니다|하지만|해요)|유감스럽게도|안타깝게도",
        "",
        r"(도와 ?드릴|도울|답변(을|은)?( 드릴| 제공할| ?할)?|대답할|제공(할|해 ?드릴)|지원할|응할) 수(는|가)? ?없(습니다|어요|네요)",
        r"(저는 )?(인공 ?지능|ai|(대규모 )?언어 모델)( 언어)?( 모델| 비서| 어시스턴트)?(로서|이기 때문에|이므로)"
        r"|저는 (단지 |그저 )?(인공 ?지능|ai|(대규모 )?언어 모델)( 언어)?( 모델| 비서| 어시스턴트)?(입니다|이며|이라)",
        "(저는|그|이|그런|이런|해당) ~",
        apart=False,
    ),
}  # fmt: skip


def _pattern(manner: Manner) -> str:
    """What such an answer begins with; an apology may be a sentence of its own."""
    edge = r"\b" if manner.apart else ""
    cannot = f"({manner.cannot}){edge}{CLAUSE}{edge}" if manner.cannot else ""
    unable = f"{cannot}({manner.helping}){edge}"
    return f"({manner.sorry}){edge}[.!。！]?~{edge}{unable}|{manner.begins}{unable}|{manner.machine}"


OTHERS = re.compile(
    r"\W*("
    + "|".join(map(_pattern, MANNERS.values())).replace("~", GAP).replace(" ?", r"\s*").replace(" ", r"\s+")
    + ")",
    re.IGNORECASE,
)


def declines(text: str) -> bool:
    """Whether `text` begins as a refusal does."""
    begun = text[:300].replace("’", "'")
    return ENGLISH.match(begun) is not None or OTHERS.match(begun) is not None
