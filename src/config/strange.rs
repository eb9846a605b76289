//! Names that are no settings: whose they may be, and which setting may be meant.

/// What the program reads beside settings, without the prefix: the settings' file, and where tests have
/// it die ([`crate::faults`]). `BUILD` is there where cargo runs it: cargo gives what a build script has set.
const OWN: &[&str] =
    &["BUILD", "CONFIG", "FAULT", "FAULT_AFTER", "FAULT_BY", "FAULT_STORAGE", "FAULT_WHEN"];

/// What variables of tests and benchmarks begin with: a shell may have them for all that it starts.
const TOOLS: &[&str] = &[
    "BENCH_",
    "FAULTS_",
    "FUZZ_",
    "HOSTILE_",
    "KILL_",
    "LOAD_",
    "RANDOM_",
    "SIMULATION_",
    "SQL_UPDATE",
    "TEST_",
];

/// Whether a variable that sets nothing may be there: `name` without the prefix.
pub(super) fn is_known(name: &str, value: &str) -> bool {
    OWN.contains(&name)
        || TOOLS.iter().any(|beginning| name.starts_with(beginning))
        || is_of_kubernetes(name, value)
}

/// What Kubernetes sets in all containers for a service called `oribi` or `oribi-...`: its chapter
/// "Discovering services", and Docker's links, whose form it has taken over.
fn is_of_kubernetes(name: &str, value: &str) -> bool {
    let name = format!("_{name}");
    if name == "_NAME"
        || name.starts_with("_ENV_")
        || name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || (name.ends_with("_PORT") && value.contains("://"))
    {
        return true;
    }
    let mut parts: Vec<&str> = name.split('_').collect();
    if matches!(parts.last(), Some(&("PORT" | "PROTO" | "ADDR"))) {
        parts.pop();
    }
    matches!(parts.as_slice(), [.., "PORT", number, "TCP" | "UDP" | "SCTP"]
        if number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The key that may be meant with a name, if one is like it.
pub(super) fn nearest(name: &str, keys: impl IntoIterator<Item = String>) -> Option<String> {
    let wanted = folded(name);
    let rank = |key: &str| {
        let known = folded(key);
        // A section too few, or a word too many.
        let part = known.ends_with(&format!("_{wanted}"))
            || wanted.ends_with(&format!("_{known}"))
            || wanted.starts_with(&format!("{known}_"));
        let distance = if part { 0 } else { distance(&wanted, &known) };
        let far = wanted.len().max(known.len()) / 3;
        (distance <= far).then_some((distance, wanted.len().abs_diff(known.len())))
    };
    let ranked = keys.into_iter().filter_map(|key| Some((rank(&key)?, key)));
    ranked.min_by_key(|(rank, _)| *rank).map(|(_, key)| key)
}

/// As a variable is called.
pub(super) fn folded(key: &str) -> String {
    key.replace(['.', '-'], "_").to_uppercase()
}

/// Letters to add, leave out, replace or swap with their neighbour, to make one text of another: the
/// distance of Damerau and Levenshtein, without changes within swapped ones.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let replaced = last[j] + usize::from(x != y);
            let mut least = replaced.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, expected) in
            [("", "", 0), ("ab", "", 2), ("abc", "acb", 1), ("kitten", "sitting", 3)]
        {
            assert_eq!((distance(a, b), distance(b, a)), (expected, expected), "{a} {b}");
        }
    }

    #[test]
    fn the_nearest_key_is_offered_and_no_far_one() {
        let keys = ["data_dir", "web", "connections.max", "engine.memory_limit", "tls.key"];
        for (name, expected) in [
            ("DATADIR", Some("data_dir")),
            ("data-dir", Some("data_dir")),
            ("MEMORY_LIMIT", Some("engine.memory_limit")),
            ("ENGINE_MEMORY_LIMTI", Some("engine.memory_limit")),
            ("connection.max", Some("connections.max")),
            ("WEB_PORT", Some("web")),
            ("NOTHING", None),
            ("colour", None),
        ] {
            let found = nearest(name, keys.map(str::to_owned));
            assert_eq!(found.as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn what_others_set_is_known() {
        for (name, value) in [
            ("CONFIG", "/etc/oribi.toml"),
            ("TEST_PYTHON", "python3"),
            ("FAULT_AFTER", "1"),
            ("FAULTS_SEED", "1"),
            ("SERVICE_HOST", "10.0.0.1"),
            ("SERVICE_PORT", "5439"),
            ("SERVICE_PORT_POSTGRES", "5439"),
            ("WEB_SERVICE_HOST", "10.0.0.1"),
            ("PORT", "tcp://10.0.0.1:5439"),
            ("PORT_5439_TCP", "tcp://10.0.0.1:5439"),
            ("PORT_5439_TCP_ADDR", "10.0.0.1"),
            ("HEADLESS_PORT_5439_TCP_PROTO", "tcp"),
        ] {
            assert!(is_known(name, value), "{name}");
        }
        for (name, value) in [("DATADIR", "/d"), ("PORT", "5439"), ("WEB_PORT", "8439")] {
            assert!(!is_known(name, value), "{name}");
        }
    }
}
