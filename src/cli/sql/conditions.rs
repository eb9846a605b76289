//! `\if`, `\elif`, `\else`, `\endif`: which parts of a script are done.

use crate::cli::error::{Error, Result};

/// The conditions that the place that is read stands in, the innermost last.
#[derive(Debug, Default)]
pub struct Conditions(Vec<Condition>);

#[derive(Debug)]
struct Condition {
    /// What stands here is done, if what is around the condition is.
    holds: bool,
    /// None of its other parts is to be done any more.
    settled: bool,
    /// `\else` has come.
    last: bool,
}

/// The commands that are looked at even where nothing is done.
pub fn is_condition(name: &str) -> bool {
    matches!(name, "if" | "elif" | "else" | "endif")
}

impl Conditions {
    /// Whether what stands here is done.
    pub fn hold(&self) -> bool {
        self.0.iter().all(|condition| condition.holds)
    }

    /// Whether one is still open.
    pub fn is_open(&self) -> bool {
        !self.0.is_empty()
    }

    /// Does one of the commands. What is neither true nor false is an error, and counts as false.
    pub fn take(&mut self, name: &str, argument: Option<&str>) -> Result<()> {
        if name == "if" {
            let around = self.hold();
            let found = if around { truth(argument) } else { Ok(false) };
            let holds = *found.as_ref().unwrap_or(&false);
            self.0.push(Condition { holds, settled: holds || !around, last: false });
            return found.map(drop);
        }
        let Some(innermost) = self.0.last_mut() else {
            return Err(Error::Usage("no \\if is open".to_owned()));
        };
        match name {
            "endif" => drop(self.0.pop()),
            _ if innermost.last => {
                return Err(Error::Usage("it cannot stand behind \\else".to_owned()));
            }
            "else" => {
                innermost.holds = !innermost.settled;
                (innermost.settled, innermost.last) = (true, true);
            }
            _ if innermost.settled => innermost.holds = false,
            _ => {
                let found = truth(argument);
                innermost.holds = *found.as_ref().unwrap_or(&false);
                innermost.settled = innermost.holds;
                return found.map(drop);
            }
        }
        Ok(())
    }
}

/// A truth value as psql reads one: also the beginning of a word.
fn truth(text: Option<&str>) -> Result<bool> {
    let text = text.unwrap_or_default().to_lowercase();
    let begins = |word: &str| !text.is_empty() && word.starts_with(&text);
    if begins("true") || begins("yes") || text == "on" || text == "1" {
        return Ok(true);
    }
    if begins("false") || begins("no") || matches!(text.as_str(), "off" | "of" | "0") {
        return Ok(false);
    }
    Err(Error::Usage(format!("\"{text}\" is neither true nor false, so it counts as false")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is done of a script of commands and marks.
    fn done(script: &[&str]) -> String {
        let mut conditions = Conditions::default();
        let mut done = String::new();
        for step in script {
            let (name, argument) = step.split_once(' ').unwrap_or((step, ""));
            if is_condition(name) {
                conditions.take(name, Some(argument)).expect(step);
            } else if conditions.hold() {
                done += name;
            }
        }
        assert!(!conditions.is_open());
        done
    }

    #[test]
    fn one_part_of_a_condition_is_done() {
        for (first, second, expected) in
            [("on", "t", "a d"), ("false", "yes", "b d"), ("0", "off", "c d")]
        {
            let (first, second) = (format!("if {first}"), format!("elif {second}"));
            let script = [&first, "a", &second, "b", "else", "c", "endif", " ", "d"];
            let script: Vec<&str> = script.iter().map(|step| &**step).collect();
            assert_eq!(done(&script).replace(' ', ""), expected.replace(' ', ""));
        }
        assert_eq!(done(&["if 0", "if 1", "a", "else", "b", "endif", "else", "c", "endif"]), "c");
        assert_eq!(done(&["if 1", "if 0", "a", "else", "b", "endif", "else", "c", "endif"]), "b");
    }

    #[test]
    fn what_is_no_condition_is_refused() {
        let mut conditions = Conditions::default();
        assert!(conditions.take("endif", None).is_err());
        assert!(conditions.take("if", Some(":x")).is_err());
        assert!(!conditions.hold());
        conditions.take("else", None).expect("the other part");
        assert!(conditions.hold());
        assert!(conditions.take("else", None).is_err() && conditions.take("elif", None).is_err());
    }
}
