"""Vocabulary of labels: the values of a source translated to agebench's, by the card and by built-in spellings."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from agebench.data.readers.age_parsing import resolve_ages
from agebench.data.readers.patterns import to_text
from agebench.data.samples import PHOTOGRAPH
from agebench.errors import UserError
from agebench.utils.table_cells import unknown_words

# Columns with a fixed vocabulary, and the spellings that a card need not explain.
VOCABULARY = {
    "gender": {"f": "female", "female": "female", "m": "male", "male": "male"},
    "split": {"train": "train", "val": "val", "test": "test", "training": "train", "valid": "val", "validation": "val"},
}
# Columns that contain no labels, or whose values other functions parse.
_UNTRANSLATED = ("sample_id", "path", "age", "age_low", "age_high", "bbox", "landmarks", PHOTOGRAPH)


def normalize_labels(
    table: pd.DataFrame, values: dict[str, dict[str, str]], *, open_ages: Sequence[float] = (), source: str
) -> pd.DataFrame:
    """Translate labels to agebench's vocabulary.

    The card's `[options.values.COLUMN]` is applied first, then `VOCABULARY`.

    Args:
        table: labels of any type; `path` and `sample_id` stay unchanged.
        values: column -> value in the source -> value in agebench. The empty text stands for unknown, `*` for all values
            that are not listed and would otherwise stay unchanged.
        open_ages: youngest and oldest age, in years, of ranges with an open end; empty if there are none.
        source: name of the table or folder in error messages.

    Returns:
        The table with labels as text (NA for unknown) and ages as `resolve_ages` returns them.

    Raises:
        UserError: `values` names a missing column, a gender or split is not in the vocabulary, or an age is an open range
            and `open_ages` is empty.
    """
    for column in values:
        if column not in table:
            raise UserError(f"{source}: options.values names '{column}', but the labels have no such column")
    translated = {}
    for column in table.columns.difference([*_UNTRANSLATED]):
        translations = {str(old): str(new) for old, new in values.get(column, {}).items()}
        text = to_text(table[column])
        text = _translate(text.mask(text.isin(list(unknown_words(column) - {*translations}))), translations)
        text = text.mask(text == "")
        if column in VOCABULARY:
            known = text.str.lower().map(VOCABULARY[column])
            unknown = text[text.notna() & known.isna()]
            if len(unknown):
                allowed = ", ".join(dict.fromkeys(VOCABULARY[column].values()))
                raise UserError(
                    f"{source}: {column} '{unknown.iloc[0]}' is none of {allowed}. Translate it on the card: "
                    f'options.values.{column} = {{"{unknown.iloc[0]}" = "…"}} ("" for unknown)'
                )
            text = known
        translated[column] = text
    return resolve_ages(table.assign(**translated), values.get("age", {}), open_ages, source=source)


def find_unknown(labels: "pd.Series[Any]", column: str, translations: dict[str, str]) -> "pd.Series[bool]":
    """Return which labels are unknown: empty cells, words for it, and values that the card translates to the empty text.

    Args:
        labels: labels before `normalize_labels`.
        column: agebench's name of the column.
        translations: the card's `[options.values.COLUMN]`.
    """
    known = {str(old): new != "" for old, new in translations.items()}
    words = [word for word in unknown_words(column) if not known.get(word, False)]
    words += [old for old, is_known in known.items() if not is_known]
    text = to_text(labels)
    is_unknown = text.isna() | text.isin(words)
    return is_unknown if known.get("*", True) else is_unknown | ~text.isin(list(known))


def _translate(text: "pd.Series[str]", translations: dict[str, str]) -> "pd.Series[str]":
    if "*" not in translations:
        return text.replace(translations)
    is_listed = text.isna() | (text == "") | text.isin(list(translations))
    return text.where(is_listed, translations["*"]).replace(translations)
