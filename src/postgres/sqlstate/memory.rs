//! Memory that is lacking, as the client is told of it.

use super::Report;

const HINT: &str =
    "Raise engine.memory_limit, or the memory of the role's pool, or ask for less at once.";

/// What the engine has said, in one sentence: it lists who holds memory in lines of their own, in the middle.
pub(super) fn out_of_memory(said: &str) -> Report {
    let told = wanted(said).unwrap_or_else(|| first_sentence(said));
    Report::error("53200", format!("out of memory: {told}")).hint(HINT)
}

/// `... Failed to allocate additional 5.0 MB for X with 3.0 MB already allocated for this reservation - 1.0 MB
/// remain available for the total memory pool: ...`, perhaps after what the statement may use.
fn wanted(said: &str) -> Option<String> {
    let (before, rest) = said.rsplit_once("Failed to allocate additional ")?;
    let (size, rest) = rest.split_once(" for ")?;
    let (held, rest) = rest.split_once(" already allocated for this reservation - ")?;
    let (what, held) = held.rsplit_once(" with ")?;
    let (free, _) = rest.split_once(" remain")?;
    let told = format!("{what} needs {size} more than its {held}, and {free} are left");
    let bound = before.lines().last().and_then(|line| line.strip_suffix(": "));
    let bound = bound.and_then(|line| line.rsplit("exhausted: ").next());
    Some(match bound.filter(|line| line.contains(" may use ")) {
        Some(bound) => format!("{bound}, {told}"),
        None => told,
    })
}

fn first_sentence(said: &str) -> String {
    let line = said.lines().next().unwrap_or_default();
    let line = line.split(" with top memory consumers").next().unwrap_or_default();
    line.trim_start_matches("Resources exhausted: ").trim_end_matches([':', ' ']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_in_whole_sentences() {
        let failed = "Failed to allocate additional 5.0 MB for HashJoinInput[0] with 3.0 MB already allocated for \
                      this reservation - 1024.0 KB remain available for the total memory pool: fair(64 MB)";
        let tracked = format!(
            "Resources exhausted: Additional allocation failed for HashJoinInput[0] with top memory consumers \
             (across reservations) as:\n  A#1(can spill: false) consumed 1 B, peak 2 B.\nError: {failed}"
        );
        let needs = "HashJoinInput[0] needs 5.0 MB more than its 3.0 MB, and 1024.0 KB are left";
        let bound = "a statement of pool \"p\" may use 4.0 MiB";
        for (said, told) in [
            (tracked, needs.to_owned()),
            (format!("{bound}: {failed}"), format!("{bound}, {needs}")),
            (
                format!(
                    "Failed to reserve memory for sort during spill: Resources exhausted: {bound}: {failed}"
                ),
                format!("{bound}, {needs}"),
            ),
            (
                "Resources exhausted: Cannot merge sorted runs".to_owned(),
                "Cannot merge sorted runs".to_owned(),
            ),
            (
                "no room for X with top memory consumers as:\n  X#1".to_owned(),
                "no room for X".to_owned(),
            ),
        ] {
            let report = out_of_memory(&said);
            assert_eq!(report.message, format!("out of memory: {told}"));
            assert!(report.hint.is_some_and(|hint| hint.contains("engine.memory_limit")));
        }
    }
}
