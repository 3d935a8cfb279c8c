"""Which language a text is in, by its script and its commonest words; no model, no download.

It can tell 24 languages where there is enough text for the small words to show: a sentence, rather than a title.  What it
cannot tell it does not guess.  It knows nothing of dialects, of code, of a few foreign words inside a text, nor of
languages that are not listed: close relatives (Norwegian, Catalan, Slovak) are taken for those that are.
"""

import re
from collections import Counter

from .texts import words

LEAST = 2.0
"""Small words, those of several languages counted in part, below which nothing is said."""
AHEAD = 1.5
"""Times that the first language must have what the second has."""

_SCRIPTS = {
    "ar": re.compile("[\u0600-\u06ff]"), "el": re.compile("[\u0370-\u03ff]"), "he": re.compile("[\u0590-\u05ff]"),
    "hi": re.compile("[\u0900-\u097f]"), "ja": re.compile("[\u3040-\u30ff]"), "ko": re.compile("[\uac00-\ud7a3]"),
    "ru": re.compile("[\u0400-\u04ff]"), "th": re.compile("[\u0e00-\u0e7f]"), "zh": re.compile("[\u3400-\u9fff]"),
}  # fmt: skip
_UKRAINIAN = re.compile("[іїєґІЇЄҐ]")
_LATIN = re.compile("[A-Za-z\u00c0-\u024f]")

_SMALL_WORDS = {
    "cs": "a se v je na to že s z do o i ale jako za by po jsou které tak pro který od nebo jeho jen také k při než bylo byl "
    "ve aby když už této tento tato jsem mezi být může lze jejich není",
    "da": "og i at det er en til af på som med for ikke den der de et var han har jeg men om sig fra ud kan vil så også ved "
    "bliver blev eller hvor når være skal efter denne dette disse kun andre mellem deres noget meget",
    "de": "der die und in den von zu das mit sich des auf für ist im dem nicht ein eine als auch es an werden aus er hat dass "
    "sie nach wird bei einer um am sind noch wie einem über einen so zum war haben nur oder aber vor zur bis mehr durch man "
    "kann wenn ich wir diese dieses dieser ihre seine unter können",
    "en": "the of and to in a is that it for was on as with be by at this are from or an have not but had they which you were "
    "his her she he we all their has would there what been if will more when who can so no my its than into only some could "
    "them about these other do how up out your just like",
    "es": "de la que el en y a los se del las un por con no una su para es al lo como más o pero sus le ha me si sin sobre "
    "este ya entre cuando todo esta ser son dos también fue había era muy hasta desde está mi porque qué sólo yo hay puede "
    "todos así nos ni parte tiene uno donde",
    "fi": "ja on ei se että oli hän mutta ovat kun niin myös joka tai kuin jos sen mitä ole vain ne olla voi jotka tämä sekä "
    "hänen minä mukaan siitä nyt jo ollut kuten sitten tämän voidaan sille jonka ovat kanssa ilman",
    "fr": "de la le et les des en un du une que est pour qui dans a par plus pas au sur ne se ce il sont avec ou son aux cette "
    "ses mais comme elle nous vous leur été être tout même ces fait très si ont bien sans peut deux où après je entre aussi "
    "dont permet cet était n d l qu",
    "hu": "a az és hogy nem is egy ez volt csak de meg ha már még van mint el azt vagy ezt kell lehet ki minden pedig olyan "
    "amely sem nagy majd amikor után között ami szerint fel mert így ahol illetve való",
    "it": "di e il la che in a per un è del non una i della le con si da al come dei sono nel alla più gli anche delle o ha "
    "ma se lo dal suo questo loro ai su era dalla nella stato questa essere tra ed perché sua cui tutti molto può due fra "
    "ancora quando così degli l",
    "nl": "de van het een en in is dat op te zijn met voor niet aan er om ook als dan maar bij of uit die hij nog naar heeft "
    "ze wordt door over tot was meer worden kan zich hun wel deze dit ik heb we geen onder tussen wat waar alleen zou",
    "pl": "w i na z się nie do to że jest o a jak od po przez za co ale dla oraz przy tym tego są tak czy był jego lub może "
    "jako jej już ich które który która być tylko ze gdy pod bez między także ten można",
    "pt": "de a o que e do da em um para com não uma os no se na por mais as dos como mas ao ele das à seu sua ou quando muito "
    "nos já eu também só pelo pela até isso ela entre depois sem mesmo aos ter seus quem nas me esse eles você foi são pode "
    "ser está tem",
    "sv": "och i att det som en på är av för med den till inte har de ett om var jag men sig från vi så kan han där när hon "
    "eller ska också efter vid under utan bara denna detta dessa mycket mellan alla andra över man finns vara hur nu",
    "tr": "ve bir bu da de için ile çok olarak daha o gibi en kadar olan ne var sonra ama ya ki her değil mi ise olduğu şey "
    "bunu ben sadece kendi onun veya göre arasında tarafından bütün hiç nasıl bana",
}

_LANGUAGES: dict[str, list[str]] = {}
for _name, _list in _SMALL_WORDS.items():
    for _word in sorted(set(_list.split())):
        _LANGUAGES.setdefault(_word, []).append(_name)


def language(text: str) -> str | None:
    """ISO 639-1 code of the language of `text`, or None where it can't be told."""
    if script := _script(text):
        return script
    scores: Counter[str] = Counter()
    for word in words(text):
        for name in _LANGUAGES.get(word, ()):
            scores[name] += 1.0 / len(_LANGUAGES[word])  # type: ignore[assignment]
    (first, most), (_, second) = ([*scores.most_common(2), ("", 0.0), ("", 0.0)])[:2]
    return first if most >= LEAST and most >= AHEAD * second else None


def _script(text: str) -> str | None:
    """The language of a script that most letters are of; None for the Latin script, which many share."""
    counts = {name: len(pattern.findall(text)) for name, pattern in _SCRIPTS.items()}
    best = max(counts, key=lambda name: counts[name])
    if sum(counts.values()) <= len(_LATIN.findall(text)) or counts[best] == 0:
        return None
    if best in ("zh", "ja"):  # kanji are shared, kana are not
        return "ja" if 10 * counts["ja"] > counts["zh"] else "zh"
    return "uk" if best == "ru" and _UKRAINIAN.search(text) else best
