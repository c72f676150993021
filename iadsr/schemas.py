"""Columns and types of every table that crosses a stage, so that no other file spells a column's name.

Raw (`ingest` -> `filter`): ids are the source's own strings, rows stand in the source's order.
Filtered (`filter` -> all others): users are 0..U-1, items 1..V (0 is padding), rows are sorted by user, then position.
"""

USER = "user"
ITEM = "item"
TIMESTAMP = "timestamp"
NANOSECOND = "nanosecond"
RATING = "rating"
IS_NOISE = "is_noise"
TITLE = "title"
CATEGORIES = "categories"
POSITION = "position"
SPLIT = "split"
ROW = "row"
RAW_USER = "raw_user"
RAW_ITEM = "raw_item"

# what verdicts add to a log: float32, null where a row is not judged; bool; str
NOISE_PROBABILITY, KEEP, REASON = OF_VERDICTS = ("noise_probability", "keep", "reason")

TRAIN, VALIDATION, TEST = "train", "validation", "test"

# interactions.parquet of `ingest`: user str, item str, timestamp int64 (seconds since 1970);
# if the source has them: rating float32, is_noise bool; if any time has a fraction of a second: nanosecond int32, what
# the time is past its timestamp, by which `filter` sorts; if rows of the source were rejected: row uint32, the number,
# from 0, of each one's row in it
RAW_INTERACTIONS = (USER, ITEM, TIMESTAMP)
RAW_INTERACTIONS_OPTIONAL = (RATING, IS_NOISE)
# items.parquet of `ingest`: item str, title str (never empty), categories str (`A > B > C`, may be empty)
RAW_ITEMS = (ITEM, TITLE, CATEGORIES)

# sequences.parquet of `filter`: user int32, item int32, position int32 (0-based), timestamp int64, split str;
# if the source has it or noise was planted: is_noise bool; if the source has them: nanosecond, rating (null if planted)
SEQUENCES = (USER, ITEM, POSITION, TIMESTAMP, SPLIT)
SEQUENCES_OPTIONAL = (IS_NOISE, NANOSECOND, RATING)
# users.parquet of `filter`: user int32, raw_user str
# items.parquet of `filter`: item int32, raw_item str, title str, categories str
# rows.parquet of `filter`, a row a row of sequences.parquet: row uint32, the number of the source's (null if planted)
USERS = (USER, RAW_USER)
ITEMS = (ITEM, RAW_ITEM, TITLE, CATEGORIES)
# What stands in each of their columns.
FILTERED = {
    **dict.fromkeys((USER, ITEM, POSITION, TIMESTAMP), "integers"),
    **dict.fromkeys((SPLIT, RAW_USER, RAW_ITEM, TITLE, CATEGORIES), "text"),
    IS_NOISE: "true or false",
    RATING: "numbers",
}
GAPS = (RATING,)  # where some rows may have none
