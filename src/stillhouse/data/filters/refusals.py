"""How an answer that declines begins, in twelve languages.

In each but English: an apology, that one cannot, and a word of helping in the same clause; those two alone, with nothing but a few
small words between them; or a machine that says of itself what it is, and nothing more of itself than that.  Apologies and inabilities of
other kinds ("I cannot wait to help you"), those that somebody else reports, and people whose work is with machines are ordinary text.
"""

import re
from typing import NamedTuple

GAP = r"[^.!?\n。！？]{0,60}?"
"""Less than a sentence; `~` in what follows, where a space stands for any white space."""
CLAUSE = r"[^.!?\n。！？,;:，、；：]{0,60}?"
"""Less than a clause."""
ENOUGH = r"(?=\s*([.,;:!?)—–]|$)| [-—–] | ({})\b)"
"""What a machine is has been said: a mark, the end or one of these words follows, and neither a hyphen nor another noun."""


class Manner(NamedTuple):
    """Of one language, as alternatives."""

    sorry: str
    cannot: str
    """Empty where it is an ending of the word of helping; `@` in it is what may stand between that and this."""
    helping: str
    machine: str
    """`#` in it stands for `goes_on`."""
    between: str = ""
    """Pronouns, adverbs and objects that may stand between the last two where there is no apology: any others, and it is something else
    that one cannot."""
    goes_on: str = ""
    """What may follow what a machine is."""
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
    | (as|i\s*('m|\s+am)\s+(just\s+|only\s+)?)\s*an?\s+(ai\b(?!-(?!((powered|based|driven)\s+)?(language|model|assistant|chatbot|system|tool|program)\b)
        |\s+(research|engineer|scientist|student|expert|developer|enthusiast|consultant))
      |artificial\s+intelligence|large\s+language|language\s+model)
    )""",
    re.IGNORECASE | re.VERBOSE,
)  # fmt: skip

MANNERS = {
    "de": Manner(
        r"(es )?tut mir (sehr |wirklich )?leid|entschuldigung|entschuldige|entschuldigen sie|verzeihung|leider",
        rf"(ich (kann|darf|werde)|(kann|darf|werde) ich) (@|(dir|ihnen|euch) (bei|mit) {CLAUSE})(nicht|keine[nr]?)|(ich bin|bin ich) @nicht in der lage",
        r"(weiter)?helfen|zu helfen|behilflich|(zu )?unterstützen|(zu )?beantworten|(zu )?erfüllen|nachkommen|nachzukommen"
        r"|bereitstellen|bereitzustellen",
        r"als (eine? )?(reines? )?(ki|künstliche intelligenz|(ki-|großes )?sprachmodell|ki-(modell|system|assistent))(,~,)?"
        r" (kann|bin|habe|darf|werde) ich\b"
        r"|ich bin (nur |lediglich )?eine? (ki|künstliche intelligenz|(ki-|großes )?sprachmodell|ki-(modell|system|assistent))#",
        r"ihnen|dir|euch|ihre[nmrs]?|deine[nmrs]?|eure[nmrs]?|dies(e[nmrs]?)?|solche[nmrs]?|das|die|den|der|dem|es|so|etwas|bei|mit|zu"
        r"|auf|in|hier|hierbei|da|dabei|damit|dazu|darauf|leider|daher|also|aber|jedoch|auch|weiter|direkt|gewünschten?|fragen?"
        r"|anfragen?|bitten?|wunsch|wünsche|aufgabe|auftrag|aufforderung|anliegen|thema|informationen|inhalten?|hilfe|form",
        "und|aber|ohne|von|kann|habe",
    ),
    "fr": Manner(
        r"(je suis )?(vraiment |sincèrement )?désolée?|je m'excuse|toutes mes excuses|excusez-moi|malheureusement",
        r"je ne (peux|pourrai|puis) @pas|je ne suis @pas (en mesure|capable|autorisée?)|je ne saurais|je refuse",
        r"aider|assister|répondre|fournir|satisfaire|accéder à|donner suite",
        r"en tant qu(e |')(ia|intelligence artificielle|(grand )?modèle de langage|assistant (ia|virtuel))"
        r"( (créée?|développée?|entraînée?|conçue?)~)?,? (je\b|j')"
        r"|je (ne )?suis (qu')?(une? )?(simple )?(ia|intelligence artificielle|(grand )?modèle de langage|assistant ia)#",
        r"vous|te|t'|lui|leur|y|vous y|de|d'|à|malheureusement|hélas|donc|pas|directement|légalement|en|cela|ce|sens|vraiment",
        "et|mais|sans|de|par|créée?|développée?|entraînée?|conçue?",
    ),
    "es": Manner(
        r"lo siento|lo lamento|lamento|lamentablemente|disculpa|disculpe|perdón|perdona|desafortunadamente|por desgracia",
        r"no (te |le |os |les )?(puedo|podré|me es posible|estoy autorizad[oa]|soy capaz)",
        r"ayudar(te|le|lo|la|los|les|os)?|asistir(te|le)?|responder|contestar|proporcionar(te|le)?|cumplir con|atender",
        r"como (una? )?(ia|inteligencia artificial|modelo de lenguaje( de ia| grande)?|asistente (de ia|virtual))"
        r"( (cread|desarrollad|entrenad)[oa]~)?,? (no |yo |solo |sólo )*(puedo|tengo|soy|estoy)\b"
        r"|soy (solo |sólo )?una? (ia|inteligencia artificial|modelo de lenguaje|asistente de ia)#",
        r"te|le|lo|la|los|las|a|de|para|con|en|eso|ello|esto|directamente|legalmente|realmente|ahora",
        "y|pero|sin|de|cread[oa]|desarrollad[oa]|entrenad[oa]",
        "(yo )?",
    ),
    "it": Manner(
        r"mi dispiace|mi scuso|scusa|scusami|scusi|scusate|spiacente|purtroppo",
        r"non (ti |la |vi |le )?(posso(?! che)|potrò|sono in grado|mi è possibile)",
        r"aiutar(e|ti|la|vi|lo)|assister(e|ti|la|vi)|risponder(e|ti|le|vi)|fornir(e|ti|le|vi)|soddisfare|esaudire",
        r"(come|in quanto) (un')?(un )?(ia|intelligenza artificiale|modello (linguistico|di linguaggio)|assistente (ia|virtuale))"
        r"( (creat|sviluppat|addestrat)[oa]~)?,? (io )?((non )?(posso|ho)|non sono)\b"
        r"|sono (solo |soltanto )?(un')?(un )?(ia|intelligenza artificiale|modello (linguistico|di linguaggio))#",
        r"ti|la|vi|le|di|a|in|con|questo|ciò|direttamente|legalmente|purtroppo|davvero",
        "e|ma|senza|di|creat[oa]|sviluppat[oa]|addestrat[oa]",
    ),
    "pt": Manner(
        r"sinto muito|lamento|(me )?desculpe|desculpa|peço desculpas?|infelizmente",
        r"não (te |lhe |o |a )?(posso|poderei|consigo|sou capaz|estou autorizad[oa])",
        r"ajudar|auxiliar|ajudá-l[oa]s?|ajudar-(te|vos|lhe)|responder|fornecer|atender|cumprir",
        r"como (uma? )?(ia|inteligência artificial|modelo de linguagem( de ia)?|assistente (de ia|virtual))"
        r"( (criad|desenvolvid|treinad)[oa]~)?,? (não |eu |só )*(posso|tenho|sou|consigo)\b"
        r"|(eu )?sou (apenas |só )?uma? (ia|inteligência artificial|modelo de linguagem|assistente de ia)#",
        r"te|lhe|o|a|os|as|vos|de|em|com|isso|isto|nisso|você|diretamente|realmente|agora",
        "e|mas|sem|de|da|criad[oa]|desenvolvid[oa]|treinad[oa]",
        "(eu )?",
    ),
    "nl": Manner(
        r"het spijt (me|mij)|sorry|helaas|(mijn )?excuses|neem me niet kwalijk",
        rf"(ik (kan|mag|zal)|(kan|mag|zal) ik) (@|(je|jou|u|jullie) (bij|met) {CLAUSE})(niet|geen)|(ik ben|ben ik) @niet in staat",
        r"(te )?helpen|(te )?beantwoorden|(te )?voldoen|(te )?assisteren|(te )?ondersteunen|(te )?verstrekken|hulp bieden",
        r"als (een )?(ai|kunstmatige intelligentie|(groot |ai-)?taalmodel|ai-(model|systeem|assistent))(,~,)? (kan|ben|heb|mag) ik\b"
        r"|ik ben (slechts |maar )?een (ai|kunstmatige intelligentie|(groot |ai-)?taalmodel|ai-(model|systeem|assistent))#",
        r"je|jou|u|jullie|uw|jouw|deze|dit|die|dat|de|het|zo'n|zulke|daar|daarbij|daarmee|hier|hierbij|hiermee|bij|mee|mee te|met|aan|op"
        r"|helaas|dus|echter|verder|direct|om|te|vraag|vragen|verzoek|verzoeken|opdracht|informatie|inhoud",
        "en|maar|zonder|van|kan|heb",
    ),
    "pl": Manner(
        r"(bardzo )?przepraszam|przykro mi|niestety|wybacz|wybaczcie",
        r"nie (mogę|będę mógł|będę mogła|jestem w stanie|wolno mi)",
        r"pomóc|odpowiedzieć|udzielić|spełnić|dostarczyć|zrealizować",
        r"jako (sztuczna inteligencja|(duży )?model językowy|asystent ai|ai)( (stworzon|opracowan|wytrenowan)\w+~)?,?"
        r" (nie )?(mogę|mam|jestem|posiadam)\b"
        r"|jestem (tylko |jedynie )?(ai|sztuczną inteligencją|(dużym )?modelem językowym|asystentem ai)#",
        r"ci|tobie|panu|pani|państwu|wam|w|z|na|tym|to|tego|tej|te|tę|ten|niestety|dlatego|bezpośrednio|pytanie|prośby|prośbie",
        "i|a|ale|bez|więc|stworzon\\w+|opracowan\\w+",
    ),
    "ru": Manner(
        r"извини|извините|прости|простите|прошу прощения|к сожалению|мне (очень )?жаль|сожалею",
        r"не (могу|смогу|в состоянии|имею права)",
        r"помочь|помогать|ответить|отвечать|предоставить|предоставлять|выполнить",
        r"как (ии|искусственный интеллект|(большая )?языковая модель)( (созданн|разработанн|обученн)\w+~)?, я\b"
        r"|я( —| -)? (всего лишь |просто |только )?(ии|искусственный интеллект|(большая )?языковая модель)#",
        r"вам|тебе|с|в|на|этим|этом|этот|это|эту|эти|вопрос|просьбу|запрос|такую|информацию|сейчас|напрямую|к сожалению",
        r"и|а|но|без|поэтому|от|созданн\w+|разработанн\w+|обученн\w+",
        "(я )?",
    ),
    "zh": Manner(
        r"(很|非常|十分)?抱歉|对不起|對不起|不好意思|很遗憾|很遺憾",
        r"无法|無法|不能|没办法|沒辦法",
        r"帮助?[您你]|幫助?[您你]|提供|(回答|解答)[这该您你此這該]|协助|協助|满足[您你这该此]|滿足[您你這該此]|完成[您你这该此這該]"
        r"|[为為][您你](做|写|寫|生成|创建|創建|撰写|撰寫|处理|處理|翻译|翻譯|服务|服務)",
        r"(作为|作為)(一个|一個|一名|一款)?((人工智能|人工智慧|ai)(语言模型|語言模型|模型|助手|助理|系统|系統)?|大?型?(语言模型|語言模型))[，,、]?我"
        r"|我(只|仅仅|僅僅)?是(一个|一個|一名|一款)?((人工智能|人工智慧|ai)(语言模型|語言模型|模型|助手|助理|系统|系統)?"
        r"|大?型?(语言模型|語言模型))(?=[，,。；、！!.;—]|$|而|并|並|所以|因此|没有|沒有|无法|無法)",
        rf"[为為](此|[这该這該任违違非]{CLAUSE}(?=提供))|[为為给給向对對][您你]|就此|对此|對此|在此|直接|继续|繼續|再|[这该此這該][个個方种種类類]?[面样樣]?的?",
        begins="(我|我们|我們)",
        apart=False,
    ),
    "ja": Manner(
        r"(大変|誠に)?申し訳(あり|ござい)ません|申し訳ないのですが|すみません|ごめんなさい|残念ながら|恐れ入りますが",
        "",
        r"(お答え|お手伝い|ご?回答|ご?提供|お応え|ご?対応|お力|サポート|支援|協力)(を|は|に)?((する|になる)こと[がは]|になれ)?"
        r"(でき(ません|かねます)|(いた|致)しかねます|ません)(?!と|でした)",
        r"(ai|人工知能|(大規模)?言語モデル)(アシスタント)?(として|なので|ですので|であるため)(は)?、"
        r"|私は(ただの|単なる)?(ai|人工知能|(大規模)?言語モデル)(アシスタント)?(です|であり|なので|ですので)",
        begins="(その|この|それ|これ|そのような|このような|ご要望|ご質問|ご依頼)~",
        apart=False,
    ),
    "ko": Manner(
        r"(정말 |대단히 )?죄송(합니다|하지만|해요)|미안(합니다|하지만|해요)|유감스럽게도|안타깝게도",
        "",
        r"(도와 ?드릴|도울|답변(을|은)?( 드릴| 제공할| ?할)?|대답할|제공(할|해 ?드릴)|지원할|응할) 수(는|가)? ?없(습니다|어요|네요)",
        r"(저는 )?(인공 ?지능|ai|(대규모 )?언어 모델)( 언어)?( 모델| 비서| 어시스턴트)?(로서|이기 때문에|이므로)"
        r"|저는 (단지 |그저 )?(인공 ?지능|ai|(대규모 )?언어 모델)( 언어)?( 모델| 비서| 어시스턴트)?(입니다|이며|이라)",
        begins="(저는|그|이|그런|이런|해당) ~",
        apart=False,
    ),
}  # fmt: skip


def _pattern(manner: Manner) -> str:
    """What such an answer begins with; an apology may be a sentence of its own."""
    edge, space = (r"\b", ",? ") if manner.apart else ("", "[，,]?")
    # an elided word ("t'aider") touches the next one
    between = rf"(({manner.between})({space}|(?<='))){{0,6}}" if manner.between else ""
    helping = f"({manner.helping}){edge}"
    cannot = f"({manner.cannot.replace('@', between)}){space}{between}" if manner.cannot else ""
    anyhow = f"{CLAUSE}{edge}"
    sorry_cannot = f"({manner.cannot.replace('@', anyhow)}){edge}{anyhow}" if manner.cannot else ""
    machine = manner.machine.replace("#", ENOUGH.format(manner.goes_on))
    sorry = f"({manner.sorry}){edge}[.!。！]?~{edge}{sorry_cannot}{helping}"
    return f"{sorry}|{manner.begins}{cannot}{helping}|{machine}"


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
