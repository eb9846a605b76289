//! Statements that write, spelled as the SQL parser knows them: DO NOTHING in MERGE is an action of
//! the right kind on a column that no table has, and a table that INSERT names right before PARTITION
//! gets an alias, which the parser would take that word for.

use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::Token;

use super::{Result, tokens};

/// The column that DO NOTHING is an action on.
pub const NOTHING: &str = "\u{2}nothing";

/// The alias of a table that has none.
pub const NO_ALIAS: &str = "\u{2}none";

/// The text as the parser understands it; `None` if it does as it is.
pub(super) fn known(text: &str) -> Result<Option<String>> {
    let has = |word: &str| {
        text.as_bytes().windows(word.len()).any(|part| part.eq_ignore_ascii_case(word.as_bytes()))
    };
    // Few statements need a second look.
    if has("nothing") && has("merge") {
        return Ok(without_nothing(text, &Words(tokens(text)?)));
    }
    if has("partition") && has("insert") {
        return Ok(with_alias(text, &Words(tokens(text)?)));
    }
    Ok(None)
}

/// The tokens of a text, with their places.
struct Words(Vec<(usize, Token)>);

impl Words {
    fn keyword(&self, at: usize) -> Keyword {
        match self.0.get(at) {
            Some((_, Token::Word(word))) if word.quote_style.is_none() => word.keyword,
            _ => Keyword::NoKeyword,
        }
    }

    fn are(&self, at: usize, words: &[Keyword]) -> bool {
        words.iter().enumerate().all(|(n, word)| self.keyword(at + n) == *word)
    }

    fn find(&self, word: Keyword) -> Option<usize> {
        (0..self.0.len()).find(|at| self.keyword(*at) == word)
    }
}

fn without_nothing(text: &str, words: &Words) -> Option<String> {
    words.find(Keyword::MERGE)?;
    let (mut changed, mut end, mut inserts) = (String::new(), 0, false);
    for (at, (start, _)) in words.0.iter().enumerate() {
        if words.are(at, &[Keyword::WHEN, Keyword::MATCHED]) {
            inserts = false;
        } else if words.are(at, &[Keyword::WHEN, Keyword::NOT, Keyword::MATCHED]) {
            inserts = !words.are(at + 3, &[Keyword::BY, Keyword::SOURCE]);
        } else if at > 0 && words.are(at - 1, &[Keyword::THEN, Keyword::DO, Keyword::NOTHING]) {
            changed.push_str(&text[end..*start]);
            changed.push_str(&match inserts {
                true => format!("INSERT (\"{NOTHING}\") VALUES (NULL)"),
                false => format!("UPDATE SET \"{NOTHING}\" = NULL"),
            });
            end = words.0[at + 1].0 + "nothing".len();
        }
    }
    changed.push_str(&text[end..]);
    (end > 0).then_some(changed)
}

fn with_alias(text: &str, words: &Words) -> Option<String> {
    let insert = words.find(Keyword::INSERT)?;
    let partition = words.find(Keyword::PARTITION)?;
    let between = words.0.get(insert + 1..partition)?;
    let is_name = |(_, token): &(usize, Token)| matches!(token, Token::Word(_) | Token::Period);
    let bracket = words.0.get(partition + 1).map(|(_, token)| token);
    if !between.iter().all(is_name) || bracket != Some(&Token::LParen) {
        return None;
    }
    let (before, after) = text.split_at(words.0[partition].0);
    Some(format!("{before}AS \"{NO_ALIAS}\" {after}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::parse_one;

    #[test]
    fn nothing_is_an_action_of_each_clause() {
        for text in [
            "MERGE INTO t USING s ON t.a = s.a WHEN MATCHED THEN DO NOTHING",
            "merge into t using s on true when not matched and s.a > 1 then do nothing",
            "MERGE INTO t USING s ON true WHEN NOT MATCHED BY SOURCE THEN DO NOTHING \
             WHEN NOT MATCHED BY TARGET THEN DO /* so */ NOTHING WHEN MATCHED THEN DELETE",
            "WITH s AS (SELECT 1) MERGE INTO t USING s ON true WHEN MATCHED THEN DO NOTHING",
        ] {
            let seen = known(text).expect(text).expect(text);
            assert!(
                seen.contains(NOTHING) && !seen.to_lowercase().contains("do nothing"),
                "{seen}"
            );
            parse_one(text).expect(text);
        }
    }

    #[test]
    fn a_table_before_its_partition_is_a_table() {
        for text in [
            "INSERT OVERWRITE t PARTITION (a = 1) SELECT 1",
            "insert overwrite table s.\"T\" partition (a) select 1",
            "INSERT INTO t PARTITION (a = 'x', b) VALUES (1)",
            "EXPLAIN INSERT OVERWRITE t PARTITION (a) SELECT 1",
        ] {
            assert!(known(text).expect(text).is_some_and(|seen| seen.contains(NO_ALIAS)), "{text}");
            parse_one(text).expect(text);
        }
        parse_one("INSERT OVERWRITE t (b, c) PARTITION (a) SELECT 1, 2").expect("has columns");
    }

    #[test]
    fn other_texts_stay_as_they_are() {
        for text in [
            "SELECT 'merge nothing'",
            "SELECT merge, nothing FROM t",
            "INSERT INTO t SELECT rank() OVER (PARTITION BY a) FROM s",
            "INSERT INTO partition VALUES ('insert')",
        ] {
            assert_eq!(known(text).expect(text), None, "{text}");
        }
    }
}
