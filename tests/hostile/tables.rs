//! The files of a managed table, copied to another place and damaged there by a seed.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::mutate::Random;

/// A table's files, by their paths below its directory.
pub struct Template {
    root: String,
    /// Where its metadata is, below the root.
    metadata: String,
    files: Vec<(String, Vec<u8>)>,
}

/// A damaged copy.
pub struct Copy {
    pub root: PathBuf,
    /// What a daemon is told of.
    pub metadata: String,
    /// The name of the file that is damaged.
    pub file: String,
    /// What it says now.
    text: String,
}

impl Copy {
    /// The place that an error names, if it is one that the damaged file names: it may be the name that is
    /// damaged.
    pub fn place(&self, message: &str) -> Option<String> {
        let words = message.split_whitespace().map(|word| word.trim_matches(['"', ':', ',']));
        let mut places = words.filter(|word| word.contains('/'));
        let named = |place: &&str| self.text.contains(place.trim_start_matches("file://"));
        places.find(named).map(str::to_owned)
    }
}

/// Where nothing of a table is.
pub const ELSEWHERE: [&str; 3] = ["/etc/passwd", "file:///dev/zero", "s3://nowhere/at/all"];

/// Letters at the end of a directory's name that differ in its copies.
const MARK: usize = 8;

impl Template {
    /// Of a table whose metadata is at this URL.
    pub fn new(url: &str) -> Self {
        let path = url.strip_prefix("file://").unwrap_or(url);
        let (root, metadata) = path.split_once("/metadata/").expect("metadata of a table");
        let mut files = Vec::new();
        collect(Path::new(root), Path::new(root), &mut files);
        Self { root: root.to_owned(), metadata: format!("metadata/{metadata}"), files }
    }

    pub fn url(&self) -> String {
        format!("{}/{}", self.root, self.metadata)
    }

    /// A copy, and what is damaged there.
    pub fn damaged(&self, number: u64, random: &mut Random) -> (&'static str, Copy) {
        let stem = &self.root[..self.root.len() - MARK];
        let root = format!("{stem}{number:0MARK$}");
        let kinds = [
            ("metadata", ".metadata.json"),
            ("sense of the metadata", ".metadata.json"),
            ("manifest lists", "snap-"),
            ("manifests", "-m"),
        ];
        let (kind, part) = random.pick(&kinds);
        let is_of = |name: &str| match part {
            "snap-" => name.contains("/snap-"),
            "-m" => name.ends_with(".avro") && !name.contains("/snap-"),
            _ => name == self.metadata,
        };
        let of_kind: Vec<_> = self.files.iter().filter(|(name, _)| is_of(name)).collect();
        let chosen = of_kind[random.below(of_kind.len())].0.clone();
        let mut text = String::new();
        for (name, bytes) in &self.files {
            let mut bytes = replaced(bytes, self.root.as_bytes(), root.as_bytes());
            if *name == chosen {
                bytes = match kind {
                    "sense of the metadata" => other_sense(&bytes, &root, random),
                    _ => damage(bytes, random),
                };
                text = String::from_utf8_lossy(&bytes).into_owned();
            }
            let path = Path::new(&root).join(name);
            fs::create_dir_all(path.parent().expect("a directory")).expect("it can be made");
            fs::write(path, bytes).expect("it can be written");
        }
        let metadata = format!("{root}/{}", self.metadata);
        let file = chosen.rsplit('/').next().expect("a name").to_owned();
        (kind, Copy { root: root.into(), metadata, file, text })
    }
}

fn collect(root: &Path, directory: &Path, files: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(root, &path, files);
        } else {
            let name = path.strip_prefix(root).expect("below the root").display().to_string();
            files.push((name, fs::read(&path).expect("it can be read")));
        }
    }
    files.sort();
}

fn replaced(bytes: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    assert_eq!(old.len(), new.len());
    let mut bytes = bytes.to_vec();
    for at in 0..bytes.len().saturating_sub(old.len()) {
        if bytes[at..].starts_with(old) {
            bytes[at..at + new.len()].copy_from_slice(new);
        }
    }
    bytes
}

fn damage(mut bytes: Vec<u8>, random: &mut Random) -> Vec<u8> {
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len());
        match random.below(6) {
            0 | 1 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..(at + 1 + random.below(50)).min(bytes.len()))),
            4 => {
                // A count of hundreds of millions.
                let count = [0x80, 0x80, 0x80, 0x80, 0x03];
                bytes.iter_mut().skip(at).zip(count).for_each(|(old, new)| *old = new);
            }
            _ => {
                let part = bytes[at..(at + 20).min(bytes.len())].to_vec();
                let to = random.below(bytes.len() + 1);
                bytes.splice(to..to, part);
            }
        }
    }
    bytes
}

/// Metadata that is JSON as before, and says something else in one or two places.
fn other_sense(bytes: &[u8], root: &str, random: &mut Random) -> Vec<u8> {
    let mut metadata: Value = serde_json::from_slice(bytes).expect("it was sound");
    for _ in 0..=random.below(2) {
        // It may not be a list any more.
        let snapshots = metadata.get_mut("snapshots").and_then(Value::as_array_mut);
        let snapshots = snapshots.filter(|all| !all.is_empty());
        match (random.below(4), snapshots) {
            // Each snapshot is its own parent, or another's child and parent.
            (0, Some(snapshots)) if snapshots.iter().all(Value::is_object) => {
                let ids: Vec<Value> = snapshots.iter().map(|s| s["snapshot-id"].clone()).collect();
                let shift = random.below(ids.len());
                for (at, snapshot) in snapshots.iter_mut().enumerate() {
                    snapshot["parent-snapshot-id"] = ids[(at + shift) % ids.len()].clone();
                }
            }
            // What it names is somewhere else, or itself.
            (1, Some(snapshots)) if snapshots.iter().all(Value::is_object) => {
                let place = match random.below(3) {
                    0 => format!("{root}/metadata"),
                    1 => format!("{root}/../../../../etc/passwd"),
                    _ => random.pick(&ELSEWHERE).to_owned(),
                };
                let last = snapshots.len() - 1;
                snapshots[last]["manifest-list"] = place.into();
            }
            _ => {
                let mut places = Vec::new();
                pointers(&metadata, String::new(), &mut places);
                let place = places[random.below(places.len())].clone();
                let value = metadata.pointer_mut(&place).expect("it is there");
                *value = other(value, random);
            }
        }
    }
    serde_json::to_vec(&metadata).expect("JSON")
}

fn pointers(value: &Value, at: String, places: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                pointers(
                    value,
                    format!("{at}/{}", name.replace('~', "~0").replace('/', "~1")),
                    places,
                );
            }
        }
        Value::Array(items) => {
            for (place, value) in items.iter().enumerate() {
                pointers(value, format!("{at}/{place}"), places);
            }
        }
        _ => {}
    }
    places.push(at);
}

fn other(value: &Value, random: &mut Random) -> Value {
    let deep = |depth: usize| (0..depth).fold(Value::Null, |inner, _| Value::Array(vec![inner]));
    match random.below(6) {
        0 => Value::Null,
        1 => i64::MAX.into(),
        2 => i64::MIN.into(),
        3 => (-1).into(),
        4 => deep(100),
        _ => Value::Array(vec![value.clone(); 1 + random.below(3)]),
    }
}
