"""What the IADSR paper prints of its data sets (Table 1); ingest warns by it, filter compares with it."""

from typing import NamedTuple


class DatasetSize(NamedTuple):
    """The size of a whole data set."""

    users: int
    items: int
    interactions: int


class Table1Row(NamedTuple):
    """A row as printed; sparsity in percent."""

    size: DatasetSize
    average_length: float
    sparsity: float


TABLE_1 = {
    "beauty": Table1Row(DatasetSize(22_363, 12_101, 198_502), 8.9, 99.93),
    "sports": Table1Row(DatasetSize(35_598, 18_357, 296_337), 8.3, 99.95),
    "toys": Table1Row(DatasetSize(19_412, 11_924, 167_597), 8.6, 99.93),
    "ml-100k": Table1Row(DatasetSize(943, 1_682, 100_000), 106.0, 93.70),
}
