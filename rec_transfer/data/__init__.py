"""From files to counts: read and clean a log, count it, load public data sets.

=============  =========================================================================
``log``        read, validate and clean the platform's log and its catalogue
``csv_rows``   read a CSV file as rows of text, whole or in pieces; the report on its rows
``big_log``    count a log bigger than memory
``counts``     count events per user and item
``features``   describe users by features of their events
``datasets``   find or download public data sets; their licences and checksums
``formats``    read the files of public data sets: Douban, CDRIB, MovieLens
``tables``     read text tables of whole numbers, the form of those files
=============  =========================================================================
"""

# isort: off: in the order of reading
from rec_transfer.data.big_log import CountedLog, count_log
from rec_transfer.data.counts import from_events
from rec_transfer.data.csv_rows import Piece, Report, pieces, read_piece, read_rows
from rec_transfer.data.datasets import DATASETS, Dataset, File, fetch
from rec_transfer.data.features import FEATURES, standardise, user_features
from rec_transfer.data.formats import (
    DomainPair,
    Ratings,
    read_cdrib_pair,
    read_movielens,
    read_ratings,
)
from rec_transfer.data.log import (
    BOT_EVENTS,
    BOT_MINUTES,
    EVENT_COLUMNS,
    EVENT_ORDER,
    EVENTS,
    ITEM_COLUMNS,
    CleanRows,
    Log,
    clean_rows,
    drop_copies_and_bots,
    read_items,
    read_log,
)
from rec_transfer.data.tables import films_1m, films_100k, read_numbers

__all__ = [
    "BOT_EVENTS",
    "BOT_MINUTES",
    "DATASETS",
    "EVENTS",
    "EVENT_COLUMNS",
    "EVENT_ORDER",
    "FEATURES",
    "ITEM_COLUMNS",
    "CleanRows",
    "CountedLog",
    "Dataset",
    "DomainPair",
    "File",
    "Log",
    "Piece",
    "Ratings",
    "Report",
    "clean_rows",
    "count_log",
    "drop_copies_and_bots",
    "fetch",
    "films_1m",
    "films_100k",
    "from_events",
    "pieces",
    "read_cdrib_pair",
    "read_items",
    "read_log",
    "read_movielens",
    "read_numbers",
    "read_piece",
    "read_ratings",
    "read_rows",
    "standardise",
    "user_features",
]
