"""Filters: what is planted is found, what is not is left alone, and every dropped row says why."""

import json
import sys
import time

import numpy as np
import pytest

from stillhouse.data.filters import choose, sift
from stillhouse.data.filters.contamination import contaminated, windows_of
from stillhouse.data.filters.language import language
from stillhouse.data.filters.near import jaccard, near_twins
from stillhouse.data.filters.refusals import MANNERS, declines
from stillhouse.data.filters.rules import repetition
from stillhouse.data.filters.texts import letters, words
from stillhouse.data.filters.vectors import tfidf
from stillhouse.data.split import prepare
from stillhouse.errors import DataError, RecipeError
from stillhouse.recipe import Data, Filter
from stillhouse.recipe.load import parse_recipe
from tiny import WORDS, language_recipe

VOCABULARY = [f"{one}{other}" for one in WORDS for other in WORDS]


def run(folder, sets: dict, **data):
    """`prepare` of a classifier on rows given by set name."""
    paths = {}
    for name, some in sets.items():
        paths[name] = folder / f"{name}.jsonl"
        paths[name].write_text("".join(json.dumps(row) + "\n" for row in some), encoding="utf-8")
        data[name] = {"source": "x"}
    return prepare(Data.model_validate(data), [], "classification", 0, paths)


def balanced(found) -> bool:
    """read == kept + held out + dropped, in each set."""
    counts = found.counts.values()
    return all(c["read"] == c["kept"] + c["held_out"] + sum(c["dropped"].values()) for c in counts)


def prose(count: int, length: int, seed: int) -> list[str]:
    draw = np.random.default_rng(seed)
    return [" ".join(VOCABULARY[n] for n in draw.integers(0, len(VOCABULARY), length)) for _ in range(count)]


def rows(texts, **more) -> list[dict]:
    return [{"id": f"{n}", "where": f"x:{n}", "text": text, **more} for n, text in enumerate(texts)]


def disguised(text: str, seed: int) -> str:
    """Another case for each letter, other punctuation and spaces between the words."""
    draw = np.random.default_rng(seed)
    marks = [" ", "  ", ", ", " - ", "! ", "\n", "-"]
    shouted = ["".join(c.upper() if draw.random() < 0.5 else c for c in word) for word in text.split()]
    return "".join(word + marks[draw.integers(len(marks))] for word in shouted)


# ── contamination ───────────────────────────────────────────────────────────────────────────────────────────────────


WAYS = ("verbatim", "disguised", "inside another text")


@pytest.mark.parametrize(
    ("how", "length"), [*((how, length) for how in WAYS for length in (4, 12, 60)), ("a third of it", 60)]
)
def test_every_planted_evaluation_row_is_found_and_no_other(how, length):
    tests, clean = rows(prose(200, length, 1)), rows(prose(400, 40, 2))
    planted = []
    for number, row in enumerate(tests):
        third = " ".join(row["text"].split()[:20])
        text = {
            "verbatim": row["text"],
            "disguised": disguised(row["text"], number),
            "inside another text": f"{clean[number]['text'][:90]} {disguised(row['text'], number)} and so on",
            "a third of it": f"well then {disguised(third, number)} never",
        }[how]
        planted.append({**row, "text": text})
    found = contaminated([*clean, *planted], {"books": tests}, 50)
    assert found[: len(clean)] == [None] * len(clean)
    assert found[len(clean) :] == ["books"] * len(planted)


def test_a_template_that_all_prompts_share_is_no_contamination():
    template = "Below is an instruction that describes a task. Write a response that completes the request. Question: {}"
    asked = prose(300, 8, 3)
    made = [
        {"id": str(n), "where": "x", "prompt": template.format(text), "completion": f"the answer is {n}"}
        for n, text in enumerate(asked)
    ]
    assert contaminated(made[100:], {"eval": made[:100]}, 50) == [None] * 200
    assert contaminated(made[100:] + made[:9], {"eval": made[:100]}, 50)[200:] == ["eval"] * 9
    assert contaminated(made[100:], {"eval": made[:2]}, 50) == [None] * 200, "two rows cannot show a template"


def test_a_question_with_another_answer_gives_itself_away_and_a_shared_answer_does_not():
    tests = [{"id": "1", "where": "x", "prompt": "What is the capital of France?", "completion": "Paris."}]
    train = [
        {"id": "2", "where": "x", "prompt": "what is the Capital of France", "completion": "It is Lyon."},
        {"id": "3", "where": "x", "prompt": "Where is the Louvre to be found?", "completion": "Paris."},
    ]
    assert contaminated(train, {"eval": tests}, 50) == ["eval", None]


def test_rows_that_all_ask_the_same_are_not_all_contaminated():
    made = [
        {"id": str(n), "where": "x", "prompt": "Tell me a very good story.", "completion": text}
        for n, text in enumerate(prose(60, 30, 4))
    ]
    assert contaminated(made[20:], {"eval": made[:20]}, 50) == [None] * 40


ASKED = "Read the passage below and then answer, in a word or two, the question that comes after it.\n{}\nQuestion: {}?\nAnswer:"


def about(passages: list[str], per: int) -> list[dict]:
    """`per` questions about each passage, in one template; each is a document of two rows."""
    asked = iter(prose(per * len(passages), 8, 8))
    found = []
    for number, passage in enumerate(passages):
        for one in range(per):
            same = {"id": f"{number} {one}", "group": f"{number}"}
            found += [
                {**same, "prompt": ASKED.format(passage, next(asked)), "completion": "yes"},
                {**same, "text": f"yes {number} {one}\n{passage}"},
            ]
    return found


def without(rows: list[dict], *names: str) -> list[dict]:
    return [{name: value for name, value in row.items() if name not in names} for row in rows]


def trained_on(passages: list[str]) -> list[dict]:
    """54 rows that have nothing of these, six in the template about other passages, and one with each passage in it."""
    others = [ASKED.format(*two) for two in zip(prose(6, 40, 10), prose(6, 8, 11), strict=True)]
    return rows([*prose(54, 50, 9), *others, *(f"well then {passage} and so on" for passage in passages)])


@pytest.mark.parametrize(("per", "passages"), [(3, 10), (3, 20), (4, 20)])
def test_a_document_counts_once_towards_a_template_however_many_rows_it_has(per, passages):
    texts = prose(passages, 40, 7)
    tests = about(texts, per)
    found = contaminated(trained_on(texts[:2]), {"reading": without(tests, "group")}, 50)
    assert found == [None] * 60 + ["reading"] * 2
    counted_twice = contaminated(trained_on(texts[:2]), {"reading": without(tests, "group", "id")}, 50)
    assert counted_twice == [None] * 62


@pytest.mark.parametrize(("per", "passages"), [(5, 18), (10, 5), (20, 2)])
def test_a_passage_of_many_questions_is_no_template_where_a_group_says_which(per, passages):
    texts = prose(passages, 40, 7)
    tests = about(texts, per)
    found = contaminated(trained_on(texts[:2]), {"reading": tests}, 50)
    assert found == [None] * 60 + ["reading"] * 2
    assert contaminated(trained_on(texts[:2]), {"reading": without(tests, "group")}, 50) == [None] * 62


def test_what_more_than_half_of_a_set_share_is_a_template_even_if_it_is_called_a_group():
    tests = [{**row, "group": "everybody"} for row in about(prose(20, 40, 7), 2)]
    assert contaminated(trained_on([]), {"reading": tests}, 50) == [None] * 60


def test_a_set_without_rows_is_given_away_by_none():
    assert contaminated(rows(prose(3, 20, 1)), {"empty": []}, 50) == [None] * 3


@pytest.mark.parametrize("length", [20, 50])
def test_windows_have_equal_hashes_exactly_where_their_text_is_equal(length):
    one, other = letters(" ".join(prose(1, 80, 5))), letters(" ".join(prose(1, 80, 6)))
    middle = one[100:180]
    texts = [one, other[:37] + middle + other[37:]]
    hashes = [dict(zip(windows_of(t, length).tolist(), range(len(t)), strict=False)) for t in texts]
    shared = {texts[0][hashes[0][h] : hashes[0][h] + length] for h in set(hashes[0]) & set(hashes[1])}
    naive = {
        texts[0][n : n + length] for n in range(len(one) - length + 1) if texts[0][n : n + length] in texts[1]
    }
    assert shared == naive and len(naive) >= 80 - length + 1
    assert len(windows_of("a" * (length - 1), length)) == 0


# ── near duplicates ─────────────────────────────────────────────────────────────────────────────────────────────────


def edited(text: str, draw: np.random.Generator, edits: int) -> str:
    found = text.split()
    for place in draw.choice(len(found), edits, replace=False):
        found[place] = VOCABULARY[int(draw.integers(len(VOCABULARY)))]
    return " ".join(found)


def naive_jaccard(one: str, other: str) -> float:
    sets = [{tuple(w[n : n + 3]) for n in range(len(w) - 2)} for w in (words(one), words(other))]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def test_near_duplicates_are_found_with_recall_and_precision_of_95_in_100():
    draw = np.random.default_rng(7)
    base = prose(600, 60, 8)
    pairs = [(text, edited(text, draw, int(draw.integers(0, 9)))) for text in base]
    texts = [text for pair in pairs for text in pair]
    twins = near_twins(texts, 0.8)
    wanted = {2 * n + 1 for n, pair in enumerate(pairs) if naive_jaccard(*pair) >= 0.8}
    found = {number for number, twin in enumerate(twins) if twin is not None}
    assert 100 < len(wanted) < 500
    assert len(found & wanted) >= 0.95 * len(wanted) and len(found & wanted) >= 0.95 * len(found)
    assert all(naive_jaccard(texts[n], texts[twins[n]]) >= 0.8 for n in found)


def test_a_near_duplicate_does_not_depend_on_case_punctuation_or_on_how_often_it_comes():
    text = prose(1, 30, 9)[0]
    assert near_twins([text, disguised(text, 1).replace("-", " "), "something else", text], 0.8) == [
        None,
        0,
        None,
        0,
    ]


def test_texts_without_words_are_no_reason_to_fail():
    assert near_twins(["", "!!!", "one", "one", "two words"], 0.8)[3] == 2
    assert jaccard(np.array([]), np.array([])) == 0.0


# ── rules ───────────────────────────────────────────────────────────────────────────────────────────────────────────


SENTENCES = {
    "en": "The film was made by people who had never seen the sea, and it shows in all of their scenes.",
    "de": "Der Film ist von Leuten gemacht worden, die das Meer nie gesehen haben, und das sieht man auch.",
    "fr": "Le film a été fait par des gens qui ne sont jamais allés à la mer, et cela se voit dans les scènes.",
    "es": "La película fue hecha por gente que no ha visto el mar, y eso se nota en todas las escenas.",
    "it": "Il film è stato fatto da persone che non hanno mai visto il mare, e questo si vede in tutte le scene.",
    "pt": "O filme foi feito por pessoas que não viram o mar, e isso se nota em todas as cenas da história.",
    "nl": "De film is gemaakt door mensen die de zee nog nooit hebben gezien, en dat is aan alles te zien.",
    "ru": "Фильм сняли люди, которые никогда не видели моря.", "zh": "这部电影是没有见过大海的人拍的。",
    "ja": "この映画は海を見たことがない人が作った。", "uk": "Фільм зняли люди, які ніколи не бачили моря.",
    "ko": "이 영화는 바다를 본 적이 없는 사람들이 만들었다.", "el": "Η ταινία γυρίστηκε από ανθρώπους.",
}  # fmt: skip


@pytest.mark.parametrize("code", SENTENCES)
def test_a_sentence_is_known_by_its_small_words_or_its_script(code):
    assert language(SENTENCES[code]) == code


@pytest.mark.parametrize("text", ["", "12345", "Mission Impossible", "a", "print(x)", "OK!"])
def test_what_is_too_short_to_tell_is_not_guessed(text):
    assert language(text) is None


def test_repetition_is_the_share_of_words_in_runs_that_came_before():
    assert repetition("one two three four five six seven") == 0.0
    assert repetition("a b c d " * 2) == pytest.approx(4 / 8)
    assert repetition("and then he said " * 25) == pytest.approx(96 / 100)
    assert repetition("") == 0.0


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("I'm sorry, but I can't help with that.", True),
        ("I’m sorry, but I cannot assist with this request.", True),
        ("Sorry, I can't do that.", True),
        ("As an AI language model, I have no opinions.", True),
        ("I cannot provide medical advice.", True),
        ("Unfortunately, I am unable to answer.", True),
        ("I'm sorry for your loss. Your mother was kind.", False),
        ("Sorry seems to be the hardest word, sang Elton John.", False),
        ("I cannot remember a better film.", False),
        ("No, Paris is the capital. I can't think of another.", False),
        ("As an artist, she painted the sea.", False),
        ("The answer is 4.", False),
        ("I'm just an AI and have no opinions.", True),
        ("As an AI assistant, I cannot see images.", True),
        ("As an AI-powered assistant, I cannot help with that.", True),
        ("I'm an AI-powered assistant and can't do that", True),
        ("As an AI-based language model, I have no opinions.", True),
        ("As an AI-driven system I take no sides.", True),
        ("As an AI-language model, I cannot do that.", True),
        ("As an AI-powered bakery, we know which bread sells.", False),
        ("I'm an AI-driven marketing expert from Leeds.", False),
        ("As an airline pilot I often see the sea from above.", False),
        ("I am an AI researcher from Leeds.", False),
        ("As an artificial flavour, vanillin is cheap.", False),
    ],
)
def test_refusals_are_known_by_how_they_begin(text, wanted):
    assert declines(text) is wanted


DECLINED = {
    "de": [
        "Es tut mir leid, aber ich kann Ihnen dabei nicht helfen.",
        "Leider kann ich diese Frage nicht beantworten.",
        "Ich kann diese Anfrage nicht erfüllen, da sie gefährlich ist.",
        "Als KI-Sprachmodell kann ich keine Meinung haben.",
        "Als KI habe ich keine Gefühle.",
        "Ich bin nur ein Sprachmodell und habe keine Augen.",
        "Ich kann Ihnen dabei leider nicht weiterhelfen.",
        "Tut mir leid, dabei kann ich dir nicht helfen.",
        "Ich bin nicht in der Lage, Ihnen dabei zu helfen.",
        "Als KI-Assistent habe ich keine Meinung.",
        "Ich bin ein KI-Modell und habe keine Gefühle.",
        "Ich kann dir bei illegalen Aktivitäten nicht helfen.",
        "Entschuldigung, ich kann Ihnen bei dieser Art von Anfragen nicht helfen.",
        "Es tut mir leid, aber ich kann Ihnen bei der Erstellung von Schadsoftware nicht helfen.",
    ],
    "fr": [
        "Je suis désolé, mais je ne peux pas vous aider avec cela.",
        "Désolée. Je ne peux pas répondre à cette question.",
        "Malheureusement, je ne suis pas en mesure de fournir ces informations.",
        "En tant qu’IA, je n’ai pas d’opinion.",
        "Je ne suis qu'une intelligence artificielle.",
        "Je ne peux malheureusement pas vous aider.",
        "Désolé, je ne peux pas t'aider.",
        "Je suis une IA et je n'ai pas d'opinion.",
    ],
    "es": [
        "Lo siento, pero no puedo ayudarte con eso.",
        "Lamentablemente, no puedo proporcionar esa información.",
        "No puedo cumplir con esa solicitud.",
        "Como modelo de lenguaje, no tengo opiniones.",
        "No te puedo ayudar con eso.",
        "No soy capaz de responder a esa pregunta.",
        "Soy una IA, así que no tengo opiniones.",
    ],
    "it": [
        "Mi dispiace, ma non posso aiutarti con questa richiesta.",
        "Purtroppo non sono in grado di rispondere a questa domanda.",
        "Come modello linguistico non ho emozioni.",
        "In quanto IA, non posso dare consigli medici.",
        "Non posso aiutarti con questo.",
        "Sono un'IA e non ho opinioni.",
    ],
    "pt": [
        "Sinto muito, mas não posso ajudar com isso.",
        "Desculpe, mas não consigo responder a essa pergunta.",
        "Infelizmente, não posso fornecer essa informação.",
        "Como uma inteligência artificial, não tenho sentimentos.",
        "Não posso te ajudar com isso.",
        "Sou uma IA, por isso não tenho opiniões.",
    ],
    "nl": [
        "Het spijt me, maar ik kan je daar niet bij helpen.",
        "Sorry, ik kan deze vraag niet beantwoorden.",
        "Helaas kan ik niet aan dit verzoek voldoen.",
        "Als AI heb ik geen mening.",
        "Ik kan je hier niet mee helpen.",
        "Ik ben een AI en heb geen mening.",
        "Het spijt me, maar ik kan je bij illegale activiteiten niet helpen.",
        "Ik kan je bij illegale activiteiten niet helpen.",
    ],
    "pl": [
        "Przepraszam, ale nie mogę w tym pomóc.",
        "Niestety nie mogę odpowiedzieć na to pytanie.",
        "Przykro mi, ale nie jestem w stanie spełnić tej prośby.",
        "Jako model językowy nie mam własnych opinii.",
        "Nie mogę ci w tym pomóc.",
        "Jestem modelem językowym, więc nie mam opinii.",
    ],
    "ru": [
        "Извините, но я не могу помочь с этим.",
        "К сожалению, я не могу ответить на этот вопрос.",
        "Я не могу предоставить эту информацию.",
        "Как языковая модель, я не имею чувств.",
        "Я не могу вам с этим помочь.",
        "Я ИИ, и у меня нет чувств.",
        "Я — языковая модель.",
    ],
    "zh": [
        "很抱歉，我无法帮助您完成这个请求。",
        "对不起，我不能提供这方面的信息。",
        "我无法回答这个问题。",
        "作为一个人工智能，我没有个人观点。",
        "抱歉。我不能為您提供協助。",
        "抱歉，我无法满足您的请求。",
        "我无法为您提供这方面的帮助。",
        "我不能为您写这样的信。",
        "我是一个人工智能，没有个人感情。",
        "我只是AI语言模型。",
        "抱歉，我不能为此提供帮助。",
        "我不能为此提供帮助。",
        "抱歉，我无法为这种违法行为提供帮助。",
        "我无法为这种违法行为提供帮助。",
    ],
    "ja": [
        "申し訳ありませんが、そのご質問にはお答えできません。",
        "申し訳ございません。そのようなご依頼には対応できかねます。",
        "すみませんが、お手伝いすることはできません。",
        "この質問にはお答えできません。",
        "AIとして、個人的な意見は持っていません。",
    ],
    "ko": [
        "죄송합니다. 그 요청은 도와드릴 수 없습니다.",
        "죄송하지만 그 질문에는 답변할 수 없습니다.",
        "저는 그 정보를 제공할 수 없습니다.",
        "AI 언어 모델로서 저는 의견이 없습니다.",
    ],
}
ORDINARY = {
    "de": [
        "Es tut mir leid, dass du krank bist; ich helfe dir gern.",
        "Leider regnet es heute, und wir können nicht in den Park gehen.",
        "Der Minister sagte, es tue ihm leid, doch er könne die Frage nicht beantworten.",
        "Ein Arzt kann nicht jedem helfen, so leid es ihm tut.",
        "Als KI bezeichnet man Programme, die lernen.",
        "Ich kann mich nicht erinnern, wer mir damals helfen wollte.",
        "Die Entschuldigung kam spät. Ich kann dir nicht sagen, ob sie half.",
        "Ich kann es nicht erwarten Ihnen zu helfen",
        "Ich kann nicht leugnen dass er mir helfen wollte.",
        "Ich kann dir mit Freude sagen, dass wir nicht helfen müssen.",
        "Leider kann ich mich nicht erinnern, wer mir damals helfen wollte.",
        "Ich bin ein KI-Forscher aus Berlin und schreibe gern.",
        "Als KI-Forscherin kann ich das bestätigen.",
    ],
    "fr": [
        "Je suis désolé d'apprendre la nouvelle ; tu peux compter sur nous pour t'aider.",
        "Malheureusement, le train ne part pas avant midi.",
        "Elle a dit : « Désolée, je ne peux pas vous aider », puis elle est partie.",
        "Je ne suis pas venu hier, et personne n'a pu répondre.",
        "En tant que médecin, je conseille le repos.",
        "En tant qu'assistant social, il aide les familles.",
        "Je ne peux pas ne pas répondre à cette lettre.",
        "Je suis une IA-experte et je travaille à Lyon.",
    ],
    "es": [
        "Lo siento por la tardanza; el tren no pudo salir a tiempo.",
        "No puedo creer que ya sea diciembre.",
        "El médico dijo que lo sentía, pero que no podía ayudarle.",
        "Como inteligencia artificial se conoce el campo que estudia máquinas.",
        "No puedo evitar responder con alegría a tu carta.",
        "No puedo dejar de responder: claro que sí.",
        "Como IA experta es conocida Ana, y yo soy su alumno.",
    ],
    "it": [
        "Mi dispiace per la tua perdita: era una persona cara.",
        "Purtroppo il museo non è aperto il lunedì.",
        "Rispose che gli dispiaceva, ma che non poteva aiutarla.",
        "Non posso credere che sia già Natale.",
        "Non posso fare a meno di rispondere con gioia!",
        "Purtroppo non posso che rispondere di sì.",
    ],
    "pt": [
        "Sinto muito pela sua perda; estamos aqui para ajudar.",
        "Infelizmente, a loja não abre aos domingos.",
        "Ele disse que sentia muito, mas que não podia ajudar.",
        "Não posso esquecer aquele verão.",
        "Não consigo deixar de responder com alegria.",
    ],
    "nl": [
        "Het spijt me dat je ziek bent; ik help je graag.",
        "Helaas is de winkel niet open op zondag.",
        "Hij zei: sorry, ik kan je niet helpen.",
        "Ik kan niet geloven dat het al winter is.",
        "Ik kan niet wachten om je te helpen",
        "Ik kan je met plezier zeggen dat het regent, en niet waarom.",
        "Ik ben een AI-onderzoeker uit Utrecht.",
    ],
    "pl": [
        "Przykro mi z powodu twojej straty, chętnie pomogę.",
        "Niestety sklep nie jest otwarty w niedzielę.",
        "Lekarz powiedział, że przeprasza, ale nie może pomóc.",
        "Nie mogę się doczekać wakacji.",
        "Nie mogę się doczekać żeby ci pomóc",
    ],
    "ru": [
        "К сожалению, поезд опоздал, и мы не смогли приехать.",
        "Он сказал: «Извините, я не могу помочь», и ушёл.",
        "Как искусственный интеллект меняет медицину?",
        "Я не могу забыть то лето.",
        "Мне жаль, что ты болеешь; помогу с радостью.",
        "Я ИИ-инженер из Москвы.",
        "Я не могу дождаться чтобы помочь тебе.",
    ],
    "zh": [
        "对不起这个词在汉语中很常用。",
        "他说对不起，他不能来帮您。",
        "我认为他们不能提供足够的证据。",
        "作为一个医生，我建议您多休息。",
        "很抱歉听到这个消息，我们不能改变过去。",
        "我不能忘记他提供的帮助。",
        "我是人工智能专业的学生，今年二十岁。",
        "我是AI研究员。",
        "作为人工智能专业的学生，我喜欢数学。",
        "我不能不为您高兴。",
        "我无法为家人做饭。",
    ],
    "ja": [
        "すみません、明日の会議には参加できません。",
        "彼は質問にはお答えできませんと言った。",
        "私はAIを勉強しています。",
        "残念ながら、試合は雨で中止になりました。",
        "当店ではカードに対応できません。",
        "この手紙には長い間お答えできませんでした。",
    ],
    "ko": [
        "죄송하지만 내일 회의에는 참석할 수 없습니다.",
        "그는 도와드릴 수 없다고 말했다.",
        "안타깝게도 경기는 비로 취소되었습니다.",
        "인공지능은 많은 일을 할 수 있습니다.",
    ],
}


@pytest.mark.parametrize("language", MANNERS)
def test_refusals_are_known_in_other_languages(language):
    assert [text for text in DECLINED[language] if not declines(text)] == []


@pytest.mark.parametrize("language", MANNERS)
def test_who_is_sorry_or_cannot_do_something_else_does_not_refuse(language):
    assert [text for text in ORDINARY[language] if declines(text)] == []


def test_a_long_text_is_told_at_once():
    start = time.perf_counter()
    for text in (
        "sorry " * 1000, "ich kann " * 1000, "我" * 5000, "その" * 3000, "leider kann ich dir bei " * 9,
        "ik kan je bij " * 20, "抱歉我不能为这" * 40,
    ):  # fmt: skip
        declines(text)
    assert time.perf_counter() - start < 1.0


A = "The river behind the old mill carries more water in spring than the whole valley drinks in a year."
B = "A lamp that nobody has lit since the war still hangs above the door of the smallest house in town."


def verdicts(texts, **settings) -> list[str | None]:
    return sift(rows(texts), Filter.model_validate(settings), {})


def test_each_rule_gives_its_reason():
    assert verdicts(["one two", "one two three", "a b c d e"], min_words=3, max_words=4) == [
        "shorter than 3 words", None, "longer than 4 words",
    ]  # fmt: skip
    assert verdicts([SENTENCES["de"], SENTENCES["en"], "Hm."], languages=["en"]) == [
        "language de",
        None,
        None,
    ]
    assert verdicts(["so it goes on " * 9, "so it goes on"], max_repetition=0.3) == ["repetition", None]
    assert verdicts(["42", "about 42"], pattern=r"^\d+$") == [None, "format: no match of the pattern"]


def test_the_answer_is_judged_and_not_the_question():
    row = {
        "id": "1",
        "where": "x",
        "prompt": "I'm sorry, I can't " * 9,
        "completion": "Then rest until you can.",
    }
    chat = {
        "id": "2",
        "where": "x",
        "messages": [
            {"role": "user", "content": "Help?"},
            {"role": "assistant", "content": "I can't help with that."},
        ],
    }
    assert sift([row, chat], Filter(refusals=True, max_repetition=0.2), {}) == [None, "refusal"]


def test_a_row_that_nobody_answered_passes_what_is_asked_of_answers_and_its_question_is_not_taken_for_one():
    prompt = {"id": "1", "where": "x", "prompt": "I'm sorry, I can't find the river. Why?"}
    system = {"role": "system", "content": "As an AI"}
    chat = {"id": "2", "where": "x", "messages": [system, {"role": "user", "content": "I can't help it."}]}
    wanted = Filter(refusals=True, min_words=50, pattern="zzz", languages=["de"], max_repetition=0.01)
    assert sift([prompt, chat], wanted, {}) == [None, None]


def test_what_is_asked_of_questions_holds_for_rows_that_nobody_answered():
    asked = [{"id": str(n), "where": "x", "prompt": text} for n, text in enumerate((A, A, B))]
    tests = {"eval": [{"id": "9", "where": "y", "prompt": B}]}
    found = sift(asked, Filter(near_duplicates=0.5, refusals=True), tests)
    assert found == [None, "near duplicate", "contains eval"]


def test_a_json_schema_is_fulfilled_or_the_row_goes(tmp_path):
    schema = tmp_path / "s.json"
    schema.write_text(json.dumps({"type": "object", "required": ["a"]}), encoding="utf-8")
    found = verdicts(['{"a": 1}', '{"b": 1}', "{a: 1}"], json_schema=str(schema))
    assert found == [None, "format: not as the JSON Schema has it", "format: not JSON"]


def test_a_file_that_is_no_json_schema_is_said_in_one_sentence(tmp_path):
    for text in ("{", '{"type": 7}'):
        (tmp_path / "s.json").write_text(text, encoding="utf-8")
        with pytest.raises(RecipeError, match=r"data\.filter\.json_schema: .*s\.json is no JSON Schema"):
            verdicts(["1"], json_schema=str(tmp_path / "s.json"))
    with pytest.raises(RecipeError, match="nowhere.json is no JSON Schema"):
        verdicts(["1"], json_schema=str(tmp_path / "nowhere.json"))


def test_a_checker_of_the_user_decides_and_its_faults_name_the_row(tmp_path, monkeypatch):
    code = (
        "def keep(row):\n    row['text'] = 'changed'\n    return True\n"
        "def why(row):\n    return 'too blue' if 'blue' in row['text'] else True\n"
        "def broken(row):\n    return 1 / 0\n"
        "def silent(row):\n    pass\n"
    )
    (tmp_path / "my_checks.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    some = rows(["a blue one", "a red one"])
    assert sift(some, Filter(checker="my_checks:why"), {}) == ["checker: too blue", None]
    assert (
        sift(some, Filter(checker="my_checks:keep"), {}) == [None, None] and some[0]["text"] == "a blue one"
    )
    with pytest.raises(DataError, match=r"x:0: my_checks:broken raised ZeroDivisionError"):
        sift(some, Filter(checker="my_checks:broken"), {})
    with pytest.raises(DataError, match=r"x:0: my_checks:silent returned NoneType; it must return True"):
        sift(some, Filter(checker="my_checks:silent"), {})
    sys.modules.pop("my_checks")


# ── a choice that stands for all ────────────────────────────────────────────────────────────────────────────────────


def test_a_selection_has_a_row_of_each_kind_where_chance_has_not():
    kinds = ["the river runs slowly", "stocks fell on fears of rates", "add salt and stir the soup"]
    draw = np.random.default_rng(10)
    texts = [" ".join(draw.permutation(kinds[0].split() * 3)) for _ in range(300)] + kinds[1:]
    chosen = [n for n, verdict in enumerate(choose(rows(texts), 3)) if verdict is None]
    assert len(chosen) == 3 and {300, 301} <= set(chosen)


def test_a_selection_is_within_twice_of_the_best_cover():
    """The law of greedy k-center, against all choices of three of twelve."""
    from itertools import combinations

    from stillhouse.data.filters.diverse import WIDTH, diverse

    texts = prose(12, 5, 11)
    vectors = tfidf(texts, WIDTH).astype(np.float64)
    distances = np.sqrt(np.maximum(0.0, 2 - 2 * vectors @ vectors.T))

    def radius(chosen):
        return distances[:, list(chosen)].min(1).max()

    best = min(radius(some) for some in combinations(range(12), 3))
    assert radius(diverse(texts, 3)) <= 2 * best + 1e-6


def test_hashed_vectors_keep_the_cosines_of_real_ones():
    texts = [f"{text} film" for text in prose(30, 12, 12)]
    texts += [text.replace("film", "book") for text in texts]
    wide, narrow = (tfidf(texts, width) for width in (65536, 512))
    assert np.allclose(np.linalg.norm(wide, axis=1), 1.0, atol=1e-5)
    assert np.abs(wide @ wide.T - narrow @ narrow.T).mean() < 0.05
    assert all((narrow @ narrow.T)[n, n + 30] > 0.5 for n in range(30))


# ── in a recipe ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_dropped_rows_are_counted_by_reason_and_kept_whole(tmp_path):
    texts = prose(60, 20, 13)
    train = [
        *texts,
        f"before {disguised(texts[1], 1)} after",
        texts[0] + " too",
        "tiny",
        disguised(texts[70 % 60], 3) + ".",
    ]
    sets = {"train": [{"text": t, "label": n % 2} for n, t in enumerate(train)]}
    sets["eval"] = [{"text": texts[1], "label": 1}]
    found = run(tmp_path, sets, filter={"min_words": 2, "near_duplicates": 0.8})
    dropped = found.counts["train"]["dropped"]
    assert dropped == {
        "also in eval": 1,
        "shorter than 2 words": 1,
        "contains eval": 1,
        "near duplicate": 2,
    } or (dropped["near duplicate"] == 1 and dropped["contains eval"] == 1)
    assert balanced(found)
    kept = {row["where"]: row for row in found.dropped if row["reason"] == "contains eval"}
    assert [row["text"] for row in kept.values()] == [train[60]]


def test_a_filter_does_not_touch_what_is_measured_on_and_order_in_the_file_does_not_matter(tmp_path):
    texts = prose(50, 20, 14)
    train = [{"text": t + more, "label": n % 2} for n, t in enumerate(texts) for more in ("", " indeed")]
    both = [
        run(tmp_path, {"train": some}, filter={"near_duplicates": 0.7, "max_words": 20}, split=10)
        for some in (train, train[::-1])
    ]
    one, other = ([row["id"] for row in found.train] for found in both)
    assert one == other
    assert len(both[0].eval) == 10 and balanced(both[0])
    none = run(tmp_path, {"train": train}, split=10)
    assert [row["id"] for row in none.eval] == [row["id"] for row in both[0].eval]


@pytest.mark.parametrize("name", ["extra", "unlabelled"])
def test_further_rows_are_filtered_as_train_is_and_against_it(tmp_path, name):
    """Rows of `extra` once went to the student as they were: the evaluation's text among them."""
    texts = prose(40, 20, 21)
    sets = {"train": [{"text": t, "label": n % 2} for n, t in enumerate(texts[:20])]}
    sets["eval"] = [{"text": t, "label": n % 2} for n, t in enumerate(texts[20:30])]
    more = [*texts[30:], texts[0] + " too", f"before {disguised(texts[25], 1)} after", "short one"]
    sets[name] = [{"text": t, "label": n % 2} for n, t in enumerate(more)]
    found = run(tmp_path, sets, filter={"min_words": 3, "near_duplicates": 0.8})
    assert found.counts[name]["dropped"] == {
        "near duplicate": 1, "contains eval": 1, "shorter than 3 words": 1,
    }  # fmt: skip
    assert {row["text"] for row in getattr(found, name)} == set(texts[30:])
    assert found.counts["train"]["dropped"] == {} and balanced(found)


def test_a_selection_keeps_as_many_as_asked_and_counts_the_rest(tmp_path):
    train = [{"text": t, "label": n % 2} for n, t in enumerate(prose(50, 20, 15))]
    found = run(tmp_path, {"train": train}, filter={"select": 12}, split=10)
    assert len(found.train) == 12 and found.counts["train"]["dropped"] == {"not selected": 28}
    assert balanced(found)


def test_a_filter_that_leaves_no_row_says_what_it_dropped(tmp_path):
    train = [{"text": t, "label": n % 2} for n, t in enumerate(prose(20, 6, 16))]
    with pytest.raises(DataError, match=r"train: no row is left of 20 \(18 shorter than 99 words\)"):
        run(tmp_path, {"train": train}, filter={"min_words": 99}, split=2)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"pattern": "("}, "data.filter.pattern: is no regular expression"),
        ({"min_words": 9, "max_words": 3}, "data.filter.min_words: 9 is more than max_words, 3"),
        ({"languages": ["eng"]}, "data.filter.languages[0]: must be "),
        ({"near_duplicates": 1.0}, "data.filter.near_duplicates: must be less than 1"),
        ({"checker": "os.system"}, "data.filter.checker: must match"),
        ({"contamination": 5}, "data.filter.contamination: must be greater than or equal to 20"),
        ({"min_word": 5}, "data.filter.min_word: no such key. Did you mean 'min_words'?"),
    ],
)
def test_a_wrong_filter_is_said_in_one_sentence(tmp_path, settings, sentence):
    recipe = language_recipe(tmp_path)
    recipe["data"] = {**recipe["data"], "filter": settings}
    with pytest.raises(RecipeError) as error:
        parse_recipe(recipe)
    assert sentence in str(error.value) and "\n" not in str(error.value)
