//! The structures of Parquet's metadata, as the reader underneath knows them: a field that it does not know
//! must not be known here either, or the two would walk different ways.
//!
//! The format: <https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift>.

use super::thrift::Kind::{Binary, Bool, Byte, Double, Int, List, Struct};
use super::thrift::Shape;

/// What stands at the end of a file.
pub static FILE: Shape = Shape {
    name: "FileMetaData",
    weight: 1024,
    fields: &[
        (1, Int),
        (2, List(&Struct(&SCHEMA_ELEMENT))),
        (3, Int),
        (4, List(&Struct(&ROW_GROUP))),
        (5, List(&Struct(&KEY_VALUE))),
        (6, Binary),
        (7, List(&Struct(&COLUMN_ORDER))),
    ],
};

pub static SCHEMA_ELEMENT: Shape = Shape {
    name: "SchemaElement",
    // As it is read, and as a type, a column and Arrow's field that are made of it.
    weight: 1024,
    fields: &[
        (1, Int),
        (2, Int),
        (3, Int),
        (4, Binary),
        (5, Int),
        (6, Int),
        (7, Int),
        (8, Int),
        (9, Int),
        (10, Struct(&LOGICAL_TYPE)),
    ],
};

static LOGICAL_TYPE: Shape = Shape {
    name: "LogicalType",
    weight: 0,
    fields: &[
        (1, Struct(&EMPTY)),
        (2, Struct(&EMPTY)),
        (3, Struct(&EMPTY)),
        (4, Struct(&EMPTY)),
        (5, Struct(&DECIMAL)),
        (6, Struct(&EMPTY)),
        (7, Struct(&TIME)),
        (8, Struct(&TIME)),
        (10, Struct(&INTEGER)),
        (11, Struct(&EMPTY)),
        (12, Struct(&EMPTY)),
        (13, Struct(&EMPTY)),
        (14, Struct(&EMPTY)),
        (15, Struct(&EMPTY)),
        (16, Struct(&VARIANT)),
        (17, Struct(&GEOMETRY)),
        (18, Struct(&GEOGRAPHY)),
    ],
};

static EMPTY: Shape = Shape { name: "a type without parameters", weight: 0, fields: &[] };

static DECIMAL: Shape = Shape { name: "DecimalType", weight: 0, fields: &[(1, Int), (2, Int)] };

static TIME: Shape =
    Shape { name: "TimeType", weight: 0, fields: &[(1, Bool), (2, Struct(&TIME_UNIT))] };

static TIME_UNIT: Shape = Shape {
    name: "TimeUnit",
    weight: 0,
    fields: &[(1, Struct(&EMPTY)), (2, Struct(&EMPTY)), (3, Struct(&EMPTY))],
};

static INTEGER: Shape = Shape { name: "IntType", weight: 0, fields: &[(1, Byte), (2, Bool)] };

static VARIANT: Shape = Shape { name: "VariantType", weight: 0, fields: &[(1, Byte)] };

static GEOMETRY: Shape = Shape { name: "GeometryType", weight: 0, fields: &[(1, Binary)] };

static GEOGRAPHY: Shape =
    Shape { name: "GeographyType", weight: 0, fields: &[(1, Binary), (2, Int)] };

static ROW_GROUP: Shape = Shape {
    name: "RowGroup",
    weight: 160,
    fields: &[
        (1, List(&Struct(&COLUMN_CHUNK))),
        (2, Int),
        (3, Int),
        (4, List(&Struct(&SORTING_COLUMN))),
        (5, Int),
        (7, Int),
    ],
};

static SORTING_COLUMN: Shape =
    Shape { name: "SortingColumn", weight: 8, fields: &[(1, Int), (2, Bool), (3, Bool)] };

static COLUMN_CHUNK: Shape = Shape {
    name: "ColumnChunk",
    weight: 640,
    fields: &[(1, Binary), (2, Int), (3, Struct(&COLUMN)), (4, Int), (5, Int), (6, Int), (7, Int)],
};

static COLUMN: Shape = Shape {
    name: "ColumnMetaData",
    weight: 0,
    fields: &[
        (1, Int),
        (2, List(&Int)),
        (4, Int),
        (5, Int),
        (6, Int),
        (7, Int),
        (9, Int),
        (10, Int),
        (11, Int),
        (12, Struct(&STATISTICS)),
        (13, List(&Struct(&ENCODING_STATISTICS))),
        (14, Int),
        (15, Int),
        (16, Struct(&SIZE_STATISTICS)),
        (17, Struct(&GEOSPATIAL_STATISTICS)),
    ],
};

static STATISTICS: Shape = Shape {
    name: "Statistics",
    weight: 0,
    fields: &[
        (1, Binary),
        (2, Binary),
        (3, Int),
        (4, Int),
        (5, Binary),
        (6, Binary),
        (7, Bool),
        (8, Bool),
    ],
};

static ENCODING_STATISTICS: Shape =
    Shape { name: "PageEncodingStats", weight: 12, fields: &[(1, Int), (2, Int), (3, Int)] };

static SIZE_STATISTICS: Shape = Shape {
    name: "SizeStatistics",
    weight: 0,
    fields: &[(1, Int), (2, List(&Int)), (3, List(&Int))],
};

static GEOSPATIAL_STATISTICS: Shape = Shape {
    name: "GeospatialStatistics",
    weight: 128,
    fields: &[(1, Struct(&BOUNDING_BOX)), (2, List(&Int))],
};

static BOUNDING_BOX: Shape = Shape {
    name: "BoundingBox",
    weight: 0,
    fields: &[
        (1, Double),
        (2, Double),
        (3, Double),
        (4, Double),
        (5, Double),
        (6, Double),
        (7, Double),
        (8, Double),
    ],
};

static KEY_VALUE: Shape =
    Shape { name: "KeyValue", weight: 48, fields: &[(1, Binary), (2, Binary)] };

static COLUMN_ORDER: Shape =
    Shape { name: "ColumnOrder", weight: 4, fields: &[(1, Struct(&EMPTY))] };

pub static COLUMN_INDEX: Shape = Shape {
    name: "ColumnIndex",
    weight: 256,
    fields: &[
        (1, List(&Bool)),
        (2, List(&Binary)),
        (3, List(&Binary)),
        (4, Int),
        (5, List(&Int)),
        (6, List(&Int)),
        (7, List(&Int)),
    ],
};

pub static OFFSET_INDEX: Shape = Shape {
    name: "OffsetIndex",
    weight: 64,
    fields: &[(1, List(&Struct(&PAGE_LOCATION))), (2, List(&Int))],
};

static PAGE_LOCATION: Shape =
    Shape { name: "PageLocation", weight: 24, fields: &[(1, Int), (2, Int), (3, Int)] };

pub static BLOOM_FILTER: Shape = Shape {
    name: "BloomFilterHeader",
    weight: 0,
    fields: &[(1, Int), (2, Struct(&CHOICE)), (3, Struct(&CHOICE)), (4, Struct(&CHOICE))],
};

static CHOICE: Shape = Shape { name: "a choice", weight: 0, fields: &[(1, Struct(&EMPTY))] };

pub static PAGE: Shape = Shape {
    name: "PageHeader",
    weight: 0,
    fields: &[
        (1, Int),
        (2, Int),
        (3, Int),
        (4, Int),
        (5, Struct(&DATA_PAGE)),
        (6, Struct(&EMPTY)),
        (7, Struct(&DICTIONARY_PAGE)),
        (8, Struct(&DATA_PAGE_V2)),
    ],
};

// Statistics are not read of pages.
pub static DATA_PAGE: Shape =
    Shape { name: "DataPageHeader", weight: 0, fields: &[(1, Int), (2, Int), (3, Int), (4, Int)] };

pub static DICTIONARY_PAGE: Shape =
    Shape { name: "DictionaryPageHeader", weight: 0, fields: &[(1, Int), (2, Int), (3, Bool)] };

pub static DATA_PAGE_V2: Shape = Shape {
    name: "DataPageHeaderV2",
    weight: 0,
    fields: &[(1, Int), (2, Int), (3, Int), (4, Int), (5, Int), (6, Int), (7, Bool)],
};
