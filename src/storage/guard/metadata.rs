//! What a Parquet file's metadata must be like before, and after, the reader underneath reads it.

use std::ops::Range;

use arrow::datatypes::{DataType, FieldRef};
use parquet::arrow::{ARROW_SCHEMA_META_KEY, parquet_to_arrow_schema};
use parquet::basic::Type;
use parquet::errors::Result;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use parquet::file::page_index::offset_index::OffsetIndexMetaData;

use super::shapes::{BLOOM_FILTER, COLUMN_INDEX, FILE, OFFSET_INDEX, SCHEMA_ELEMENT};
use super::thrift::{BEGIN, Walk, damaged};

/// How deep columns may be nested: each level is a call of the reader underneath within the last one.
const MAX_NESTING: usize = 100;

/// Bytes of the values of a column of a fixed length, at most: the reader underneath reserves room for a
/// batch of them before it looks at the first.
const MAX_FIXED: i64 = 64 << 10;

/// Values of a list of a fixed length, at most: a batch of nulls has as many for each of its rows.
const MAX_FIXED_LIST: u64 = 16 << 10;

/// The type of columns of a fixed length.
const FIXED_LENGTH: i64 = Type::FIXED_LEN_BYTE_ARRAY as i64;

/// Checks the structure at a file's end. Returns how many bytes it takes once it is read, about.
pub fn check_footer(bytes: &[u8]) -> Result<u64> {
    let mut elements: Vec<Element> = Vec::new();
    let mut walk = Walk::new(bytes);
    walk.structure(&FILE, &mut |shape, field, value| {
        if !std::ptr::eq(shape, &SCHEMA_ELEMENT) {
            return Ok(());
        }
        match (field, elements.last_mut()) {
            (BEGIN, _) => elements.push(Element::default()),
            (1, Some(element)) => element.kind = value,
            (2, Some(element)) => element.length = value,
            (5, Some(element)) => element.children = value,
            _ => {}
        }
        Ok(())
    })?;
    check_tree(&elements)?;
    Ok(walk.weight())
}

/// What is looked at of a column, or of a group of columns.
#[derive(Clone, Copy, Debug, Default)]
struct Element {
    kind: i64,
    length: i64,
    children: i64,
}

/// Elements come with the groups before what is in them, which only the numbers of children tell.
fn check_tree(elements: &[Element]) -> Result<()> {
    // Of each group that we are in, how many children are still to come.
    let mut open: Vec<i64> = Vec::new();
    let mut left = elements.len() as i64 - 1;
    for element in elements {
        while open.pop_if(|left| *left == 0).is_some() {}
        if let Some(left) = open.last_mut() {
            *left -= 1;
        }
        if element.children > left {
            let reason = format!("a group has {} columns of {left}", element.children);
            return Err(damaged(reason));
        }
        if element.children > 0 {
            left -= element.children;
            open.push(element.children);
        }
        if open.len() > MAX_NESTING {
            return Err(damaged(format!("its columns are nested more than {MAX_NESTING} deep")));
        }
        if element.kind == FIXED_LENGTH && element.length > MAX_FIXED {
            return Err(damaged(format!(
                "a column has values of {} bytes each; up to {MAX_FIXED} are supported",
                element.length
            )));
        }
    }
    Ok(())
}

/// Checks where a file of so many bytes has its columns' chunks: each within the file, and apart from all
/// others, so that what is read of the file is of one chunk.
pub fn check_chunks(metadata: &ParquetMetaData, size: u64) -> Result<()> {
    let mut extents = Vec::new();
    for chunk in metadata.row_groups().iter().flat_map(|group| group.columns()) {
        let extent = extent(chunk)
            .filter(|extent| extent.end <= size)
            .ok_or_else(|| damaged(format!("column {} lies outside of it", chunk.column_path())))?;
        if !extent.is_empty() {
            extents.push((extent, chunk));
        }
    }
    if !extents.is_sorted_by_key(|(extent, _)| extent.start) {
        extents.sort_unstable_by_key(|(extent, _)| extent.start);
    }
    for pair in extents.windows(2) {
        if let [(before, _), (after, chunk)] = pair
            && before.end > after.start
        {
            return Err(damaged(format!("column {} lies within another", chunk.column_path())));
        }
    }
    Ok(())
}

/// Checks the types that Arrow's own description of the columns asks for, if there is one: a list of a fixed
/// length takes that length even where it is null.
pub fn check_types(metadata: &ParquetMetaData) -> Result<()> {
    let metadata = metadata.file_metadata();
    let Some(facts) = metadata.key_value_metadata() else { return Ok(()) };
    if !facts.iter().any(|fact| fact.key == ARROW_SCHEMA_META_KEY) {
        return Ok(());
    }
    let schema = parquet_to_arrow_schema(metadata.schema_descr(), Some(facts))?;
    schema.fields().iter().try_for_each(|field| check_type(field.data_type(), 1))
}

fn check_type(kind: &DataType, values: u64) -> Result<()> {
    let inner = |field: &FieldRef| check_type(field.data_type(), values);
    match kind {
        DataType::FixedSizeList(field, length) => {
            let values = values.saturating_mul(u64::try_from(*length).unwrap_or(0));
            if values > MAX_FIXED_LIST {
                return Err(damaged(format!(
                    "a list has {values} values; up to {MAX_FIXED_LIST} are supported where all lists \
                     have as many"
                )));
            }
            check_type(field.data_type(), values)
        }
        DataType::List(field) | DataType::LargeList(field) | DataType::Map(field, _) => {
            inner(field)
        }
        DataType::ListView(field) | DataType::LargeListView(field) => inner(field),
        DataType::Struct(fields) => fields.iter().try_for_each(inner),
        _ => Ok(()),
    }
}

/// Where a chunk lies; `None` if that is nowhere.
pub fn extent(chunk: &ColumnChunkMetaData) -> Option<Range<u64>> {
    let start = chunk.dictionary_page_offset().unwrap_or(chunk.data_page_offset());
    let start = u64::try_from(start).ok()?;
    let length = u64::try_from(chunk.compressed_size()).ok()?;
    Some(start..start.checked_add(length)?)
}

/// Where a file of so many bytes has its page indexes; `None` if it has none.
pub fn index_extent(metadata: &ParquetMetaData, size: u64) -> Result<Option<Range<u64>>> {
    let mut whole: Option<Range<u64>> = None;
    for chunk in metadata.row_groups().iter().flat_map(|group| group.columns()) {
        for part in index_parts(chunk).into_iter().flatten() {
            if part.end > size {
                let path = chunk.column_path();
                return Err(damaged(format!("the page index of column {path} lies outside of it")));
            }
            whole = Some(match whole {
                Some(whole) => whole.start.min(part.start)..whole.end.max(part.end),
                None => part,
            });
        }
    }
    Ok(whole)
}

/// Where the column index and the offset index of a chunk are.
fn index_parts(chunk: &ColumnChunkMetaData) -> [Option<Range<u64>>; 2] {
    let part = |offset: Option<i64>, length: Option<i32>| {
        let start = u64::try_from(offset?).ok()?;
        let length = u64::try_from(length?).ok()?;
        Some(start..start.saturating_add(length))
    };
    [
        part(chunk.column_index_offset(), chunk.column_index_length()),
        part(chunk.offset_index_offset(), chunk.offset_index_length()),
    ]
}

/// Checks the page indexes among bytes from a place on. Returns how many bytes they take once they are
/// read, about.
pub fn check_indexes(metadata: &ParquetMetaData, start: u64, bytes: &[u8]) -> Result<u64> {
    let mut weight = 0u64;
    for chunk in metadata.row_groups().iter().flat_map(|group| group.columns()) {
        for (part, shape) in index_parts(chunk).into_iter().zip([&COLUMN_INDEX, &OFFSET_INDEX]) {
            let Some(part) = part else { continue };
            let Some(begin) = part.start.checked_sub(start) else { continue };
            let Some(bytes) = bytes.get(begin as usize..(part.end - start) as usize) else {
                continue;
            };
            let mut walk = Walk::new(bytes);
            walk.structure(shape, &mut |_, _, _| Ok(()))?;
            weight = weight.saturating_add(walk.weight());
        }
    }
    Ok(weight)
}

/// Checks that the pages that a file's index tells of lie in their chunks, one behind the other.
pub fn check_locations(metadata: &ParquetMetaData) -> Result<()> {
    let Some(index) = metadata.offset_index() else { return Ok(()) };
    for (group, pages) in metadata.row_groups().iter().zip(index) {
        for (chunk, pages) in group.columns().iter().zip(pages) {
            if !in_order(chunk, pages, group.num_rows()) {
                let path = chunk.column_path();
                return Err(damaged(format!(
                    "the page index of column {path} is not of its pages"
                )));
            }
        }
    }
    Ok(())
}

fn in_order(chunk: &ColumnChunkMetaData, pages: &OffsetIndexMetaData, rows: i64) -> bool {
    let Some(extent) = extent(chunk) else { return false };
    let (mut end, mut row) = (extent.start, 0);
    pages.page_locations().iter().enumerate().all(|(at, page)| {
        let begin = u64::try_from(page.offset).unwrap_or(u64::MAX);
        let length = u64::try_from(page.compressed_page_size).unwrap_or(u64::MAX);
        let first = page.first_row_index;
        let right = begin >= end && (row..=rows).contains(&first) && (at > 0 || first == 0);
        (end, row) = (begin.saturating_add(length), first);
        right && end <= extent.end
    })
}

/// Checks the head of a bloom filter.
pub fn check_bloom_filter(bytes: &[u8]) -> Result<()> {
    Walk::new(bytes).structure(&BLOOM_FILTER, &mut |_, _, _| Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn element(children: i64) -> Element {
        Element { children, ..Element::default() }
    }

    fn refusal(elements: &[Element]) -> String {
        check_tree(elements).expect_err("it is refused").to_string()
    }

    #[test]
    fn groups_have_no_more_children_than_there_are() {
        let tree = [3, 0, 2, 0, 0, 1, 0].map(element);
        check_tree(&tree).expect("it is right");
        let tree = [3, 0, 2, 0, 0, 2, 0].map(element);
        assert!(refusal(&tree).contains("a group has 2 columns of 1"));
        assert!(refusal(&[i64::from(i32::MAX), 0].map(element)).contains("2147483647"));
        check_tree(&[]).expect("that is for the reader to refuse");
    }

    #[test]
    fn groups_are_nested_so_deep_and_no_deeper() {
        let mut tree = vec![element(1); MAX_NESTING];
        tree.push(element(0));
        check_tree(&tree).expect("it is right");
        tree.insert(0, element(1));
        assert!(refusal(&tree).contains("nested"));
        // Groups one behind the other are not nested.
        let mut tree = vec![element(1000)];
        tree.extend([element(1), element(0)].repeat(1000));
        check_tree(&tree).expect("it is right");
    }

    #[test]
    fn values_of_a_fixed_length_have_a_bound() {
        let fixed = |length| Element { kind: FIXED_LENGTH, length, children: 0 };
        check_tree(&[element(1), fixed(MAX_FIXED)]).expect("it is right");
        assert!(refusal(&[element(1), fixed(i64::from(i32::MAX))]).contains("2147483647 bytes"));
    }
}
