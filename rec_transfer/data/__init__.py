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

# isort: off
from rec_transfer.data.log import (
    EVENTS,
    EVENT_COLUMNS,
    EVENT_ORDER,
    ITEM_COLUMNS,
    BOT_EVENTS,
    BOT_MINUTES,
    Log,
    CleanRows,
    read_log,
    read_items,
    clean_rows,
    drop_copies_and_bots,
)
from rec_transfer.data.csv_rows import Report, Piece, read_rows, pieces, read_piece
from rec_transfer.data.big_log import CountedLog, count_log
from rec_transfer.data.counts import from_events
from rec_transfer.data.features import FEATURES, user_features, standardise
from rec_transfer.data.datasets import DATASETS, Dataset, File, fetch
from rec_transfer.data.formats import (
    Ratings,
    DomainPair,
    read_ratings,
    read_movielens,
    read_cdrib_pair,
)
from rec_transfer.data.tables import read_numbers, films_100k, films_1m

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
