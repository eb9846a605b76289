//! Statements spelled as the SQL parser knows them: DO NOTHING in MERGE is an action of the right kind on a
//! column that no table has, a table that INSERT names right before PARTITION gets an alias, which the
//! parser would take that word for, and a row lock is one of the two kinds, for one table each. TABLE
//! as a query is the SELECT that it stands for, and LIKE ALL the operator. ONLY says nothing where no
//! table has others below it, nor EXCLUDE NO OTHERS of a window. The digits of an interval stand behind it, signs
//! apart from operators, and `trim` says what it takes away.

use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::Token;

use super::{Result, tokens};

/// The column that DO NOTHING is an action on.
pub const NOTHING: &str = "\u{2}nothing";

/// The alias of a table that has none.
pub const NO_ALIAS: &str = "\u{2}none";

/// The one column of a subquery in FROM, whose values another is looked for among: no statement has a column of
/// that name.
pub const MEMBER: &str = "\u{2}value";

/// The text as the parser understands it; `None` if it does as it is.
pub(super) fn known(text: &str) -> Result<Option<String>> {
    let has = |word: &str| {
        text.as_bytes().windows(word.len()).any(|part| part.eq_ignore_ascii_case(word.as_bytes()))
    };
    // Few statements need a second look.
    let locks = has("for") && (has("key") || has("of")) && (has("update") || has("share"));
    let only = has("only") && (has("from") || has("table") || has("join") || has("update"));
    let looks: [(bool, Rewriting); 10] = [
        (may_join_signs(text), with_signs_apart),
        (only, without_only),
        (has("exclude") && has("others"), without_others),
        (has("nothing") && has("merge"), without_nothing),
        (has("partition") && has("insert"), with_alias),
        (has("table"), with_selects),
        (has("like") && has("all"), with_operators),
        (has("trim") && has("from"), with_blanks),
        (locks, with_plain_locks),
        (has("interval") && text.contains('('), with_seconds),
    ];
    let mut changed = None;
    for (_, rewriting) in looks.into_iter().filter(|(may_be, _)| *may_be) {
        let present = changed.as_deref().unwrap_or(text);
        let next = rewriting(present, &Words(tokens(present)?));
        changed = next.or(changed);
    }
    Ok(changed)
}

/// One way to spell a text anew, if there is a need.
type Rewriting = fn(&str, &Words) -> Option<String>;

/// The tokens of a text, with their places.
struct Words(Vec<(usize, Token)>);

impl Words {
    fn keyword(&self, at: usize) -> Keyword {
        match self.0.get(at) {
            Some((_, Token::Word(word))) if word.quote_style.is_none() => word.keyword,
            _ => Keyword::NoKeyword,
        }
    }

    /// Whether it is a word that is not SQL's own.
    fn is_name(&self, at: usize) -> bool {
        let word = matches!(self.0.get(at), Some((_, Token::Word(_))));
        word && self.keyword(at) == Keyword::NoKeyword
    }

    fn are(&self, at: usize, words: &[Keyword]) -> bool {
        words.iter().enumerate().all(|(n, word)| self.keyword(at + n) == *word)
    }

    fn find(&self, word: Keyword) -> Option<usize> {
        (0..self.0.len()).find(|at| self.keyword(*at) == word)
    }
}

/// What operators are made of.
const OPERATORS: &[u8] = b"+-*/<>=~!@#%^&|`?";

/// Those of which one is in any operator that ends with a sign.
const BEFORE_SIGNS: &[char] = &['~', '!', '@', '#', '%', '^', '&', '|', '`', '?'];

/// Whether a sign may stand right behind an operator.
fn may_join_signs(text: &str) -> bool {
    let joins = |pair: &[u8]| matches!(pair[1], b'+' | b'-') && OPERATORS.contains(&pair[0]);
    text.as_bytes().windows(2).any(joins)
}

/// Signs behind operators, as in `a >=-1`, which the parser takes for one operator with them.
fn with_signs_apart(text: &str, words: &Words) -> Option<String> {
    let (mut changed, mut end) = (String::new(), 0);
    for (start, token) in &words.0 {
        let Token::CustomBinaryOperator(operator) = token else { continue };
        if operator.contains(BEFORE_SIGNS) {
            continue;
        }
        let own = operator.trim_end_matches(['+', '-']).len().max(1);
        for sign in own..operator.len() {
            changed.push_str(&text[end..start + sign]);
            changed.push(' ');
            end = start + sign;
        }
    }
    changed.push_str(&text[end..]);
    (end > 0).then_some(changed)
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

/// ONLY before a table.
fn without_only(text: &str, words: &Words) -> Option<String> {
    use Keyword::{FROM, JOIN, ONLY, TABLE, UPDATE};
    let is = |at: usize, token: &Token| words.0.get(at).is_some_and(|(_, own)| own == token);
    let mut places = Vec::new();
    for at in (1..words.0.len()).filter(|at| words.keyword(*at) == ONLY) {
        if !matches!(words.keyword(at - 1), FROM | JOIN | TABLE | UPDATE) {
            continue;
        }
        let start = words.0[at].0;
        let mut end = at + 1;
        if is(end, &Token::LParen) {
            // Only a name may stand in the brackets.
            while matches!(words.0.get(end + 1), Some((_, Token::Word(_) | Token::Period))) {
                end += 1;
            }
            if is(end + 1, &Token::RParen) && end > at + 1 {
                let (open, close) = (words.0[at + 1].0, words.0[end + 1].0);
                places.extend([(start, open + 1), (close, close + 1)]);
            }
        } else if matches!(words.0.get(end), Some((_, Token::Word(_)))) {
            places.push((start, start + "only".len()));
        }
    }
    without(text, places.into_iter())
}

/// EXCLUDE NO OTHERS, which a window does anyway.
fn without_others(text: &str, words: &Words) -> Option<String> {
    let is = |at: usize, word: &str| match words.0.get(at) {
        Some((_, Token::Word(own))) => {
            own.quote_style.is_none() && own.value.eq_ignore_ascii_case(word)
        }
        _ => false,
    };
    let places = (0..words.0.len())
        .filter(|at| is(*at, "exclude") && is(at + 1, "no") && is(at + 2, "others"));
    without(text, places.map(|at| (words.0[at].0, words.0[at + 2].0 + "others".len())))
}

/// The text with blanks in some places, so that the rest stays where it is.
fn without(text: &str, places: impl Iterator<Item = (usize, usize)>) -> Option<String> {
    let (mut changed, mut end) = (String::new(), 0);
    for (from, to) in places {
        changed.push_str(&text[end..from]);
        changed.extend(std::iter::repeat_n(' ', to - from));
        end = to;
    }
    changed.push_str(&text[end..]);
    (end > 0).then_some(changed)
}

/// TABLE where a query may stand.
fn with_selects(text: &str, words: &Words) -> Option<String> {
    use Keyword::{
        ALL, ANALYZE, AS, DISTINCT, EXCEPT, EXPLAIN, INSERT, INTERSECT, TABLE, UNION, VERBOSE,
    };
    let (mut changed, mut end) = (String::new(), 0);
    for at in (0..words.0.len()).filter(|at| words.keyword(*at) == TABLE) {
        let before = at.checked_sub(1).map(|before| (&words.0[before].1, words.keyword(before)));
        let begins = match before {
            None => true,
            // Behind a name it is a column's, or an argument's.
            Some((Token::LParen, _)) => at < 2 || !words.is_name(at - 2),
            Some((_, UNION | INTERSECT | EXCEPT | EXPLAIN)) => true,
            // Behind the queries that WITH has named, what INSERT is to fill, and options of EXPLAIN.
            Some((Token::RParen, _)) => {
                matches!(words.keyword(0), Keyword::WITH | INSERT | EXPLAIN)
            }
            Some((_, ANALYZE | VERBOSE)) => words.keyword(0) == EXPLAIN,
            Some((_, ALL | DISTINCT)) => {
                at >= 2 && matches!(words.keyword(at - 2), UNION | INTERSECT | EXCEPT)
            }
            // It may also be what a column is called.
            Some((_, AS)) => words.keyword(at + 1) == Keyword::NoKeyword,
            Some((Token::Word(_), Keyword::NoKeyword)) => {
                words.keyword(0) == INSERT && words.keyword(at + 1) == Keyword::NoKeyword
            }
            Some(_) => false,
        };
        if begins
            && matches!(words.0.get(at + 1), Some((_, Token::Word(_))))
            && ends_table(words, at + 1)
        {
            changed.push_str(&text[end..words.0[at].0]);
            changed.push_str("SELECT * FROM");
            end = words.0[at].0 + "table".len();
        }
    }
    changed.push_str(&text[end..]);
    (end > 0).then_some(changed)
}

/// Whether behind the name of a table comes what may follow a query: neither an alias nor a condition.
fn ends_table(words: &Words, name: usize) -> bool {
    use Keyword::{
        EXCEPT, FETCH, FOR, INTERSECT, LIMIT, OFFSET, ON, ORDER, RETURNING, UNION, WITH,
    };
    let mut at = name + 1;
    while matches!(words.0.get(at), Some((_, Token::Period))) {
        at += 2;
    }
    match words.0.get(at) {
        None | Some((_, Token::RParen | Token::SemiColon)) => true,
        Some(_) => matches!(
            words.keyword(at),
            EXCEPT
                | FETCH
                | FOR
                | INTERSECT
                | LIMIT
                | OFFSET
                | ON
                | ORDER
                | RETURNING
                | UNION
                | WITH
        ),
    }
}

/// `trim(LEADING FROM x)` and `trim(FROM x)`, which are about blanks.
fn with_blanks(text: &str, words: &Words) -> Option<String> {
    let (mut changed, mut end) = (String::new(), 0);
    for at in (0..words.0.len()).filter(|at| words.keyword(*at) == Keyword::TRIM) {
        if !matches!(words.0.get(at + 1), Some((_, Token::LParen))) {
            continue;
        }
        let sided =
            matches!(words.keyword(at + 2), Keyword::LEADING | Keyword::TRAILING | Keyword::BOTH);
        let from = if sided { at + 3 } else { at + 2 };
        if words.keyword(from) != Keyword::FROM {
            continue;
        }
        let start = words.0[from].0;
        changed.push_str(&text[end..start]);
        end = match sided {
            true => {
                changed.push_str("' ' ");
                start
            }
            false => start + "from".len(),
        };
    }
    changed.push_str(&text[end..]);
    (end > 0).then_some(changed)
}

/// `[NOT] LIKE ALL` and `[NOT] ILIKE ALL` as operators.
fn with_operators(text: &str, words: &Words) -> Option<String> {
    let (mut changed, mut end) = (String::new(), 0);
    for at in 0..words.0.len() {
        let operator = match words.keyword(at) {
            Keyword::LIKE => "~~",
            Keyword::ILIKE => "~~*",
            _ => continue,
        };
        if words.keyword(at + 1) != Keyword::ALL
            || !matches!(words.0.get(at + 2), Some((_, Token::LParen)))
        {
            continue;
        }
        let negated = at > 0 && words.keyword(at - 1) == Keyword::NOT;
        let from = words.0[if negated { at - 1 } else { at }].0;
        changed.push_str(&text[end..from]);
        changed.push_str(if negated { "!" } else { "" });
        changed.push_str(operator);
        changed.push(' ');
        end = words.0[at + 1].0;
    }
    changed.push_str(&text[end..]);
    (end > 0).then_some(changed)
}

/// `INTERVAL(3) '...'`, of which the parser forgets the digits, as `INTERVAL '...' SECOND(3)`, which means the
/// same.
fn with_seconds(text: &str, words: &Words) -> Option<String> {
    let token = |at: usize| words.0.get(at).map(|(_, token)| token);
    let (mut changed, mut end) = (String::new(), 0);
    for at in (0..words.0.len()).filter(|at| words.keyword(*at) == Keyword::INTERVAL) {
        let (
            Some(Token::LParen),
            Some(Token::Number(digits, _)),
            Some(Token::RParen),
            Some(Token::SingleQuotedString(_)),
        ) = (token(at + 1), token(at + 2), token(at + 3), token(at + 4))
        else {
            continue;
        };
        let (bracket, literal) = (words.0[at + 1].0, words.0[at + 4].0);
        // Not as far as the next token: a comment may stand between them.
        let Some(length) = quoted(&text[literal..]) else { continue };
        changed.push_str(&text[end..bracket]);
        end = literal + length;
        changed.push_str(&format!(" {} SECOND({digits})", &text[literal..end]));
    }
    changed.push_str(&text[end..]);
    (end > 0).then_some(changed)
}

/// How long the string in quotes is that a text begins with: a quote within it is written twice.
fn quoted(text: &str) -> Option<usize> {
    let mut rest = text.strip_prefix('\'')?;
    loop {
        rest = &rest[rest.find('\'')? + 1..];
        match rest.strip_prefix('\'') {
            Some(within) => rest = within,
            None => return Some(text.len() - rest.len()),
        }
    }
}

/// FOR NO KEY UPDATE as FOR UPDATE, FOR KEY SHARE as FOR SHARE, and `OF a, b` as two clauses. What is left
/// out becomes blanks, so that the rest stays where it is.
fn with_plain_locks(text: &str, words: &Words) -> Option<String> {
    use Keyword::{FOR, KEY, NO, OF, SHARE, UPDATE};
    let (mut changed, mut end) = (String::new(), 0);
    for at in (0..words.0.len()).filter(|at| words.keyword(*at) == FOR) {
        let (kind, weak) = match at {
            _ if words.are(at, &[FOR, NO, KEY, UPDATE]) => (at + 3, true),
            _ if words.are(at, &[FOR, KEY, SHARE]) => (at + 2, true),
            _ if words.are(at, &[FOR, UPDATE]) || words.are(at, &[FOR, SHARE]) => (at + 1, false),
            _ => continue,
        };
        if weak {
            let (from, to) = (words.0[at].0 + "for".len(), words.0[kind].0);
            changed.push_str(&text[end..from]);
            changed.extend(std::iter::repeat_n(' ', to - from));
            end = to;
        }
        if words.keyword(kind + 1) != OF {
            continue;
        }
        let again = if words.keyword(kind) == UPDATE { "FOR UPDATE OF" } else { "FOR SHARE OF" };
        let names = words.0[kind + 2..].iter();
        let names = names.take_while(|(_, token)| {
            let keyword = match token {
                Token::Word(word) if word.quote_style.is_none() => word.keyword,
                Token::Word(_) | Token::Period | Token::Comma => Keyword::NoKeyword,
                _ => return false,
            };
            !matches!(keyword, FOR | Keyword::NOWAIT | Keyword::SKIP)
        });
        for (comma, _) in names.filter(|(_, token)| *token == Token::Comma) {
            changed.push_str(&text[end..*comma]);
            changed.push_str(&format!(" {again} "));
            end = comma + 1;
        }
    }
    changed.push_str(&text[end..]);
    (end > 0).then_some(changed)
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
    fn a_table_is_a_query() {
        for text in [
            "TABLE t",
            "table s.\"T\" ORDER BY 1 LIMIT 3",
            "WITH a AS (TABLE t) TABLE a UNION ALL TABLE b EXCEPT TABLE c",
            "CREATE TABLE c AS TABLE t",
            "SELECT * FROM (TABLE t) AS s",
            "EXPLAIN ANALYZE TABLE t",
            "EXPLAIN VERBOSE TABLE t",
            "EXPLAIN (COSTS) TABLE t",
            "EXPLAIN (ANALYZE, COSTS off) WITH a AS (SELECT 1) TABLE a",
            "INSERT INTO a TABLE b",
            "INSERT INTO a (b, c) TABLE d.e RETURNING b",
        ] {
            let seen = known(text).expect(text).expect(text);
            assert!(seen.contains("SELECT * FROM"), "{seen}");
            parse_one(text).expect(text);
        }
        for text in [
            "CREATE TABLE a (b int)",
            "SELECT 1 AS table FROM t",
            "DROP TABLE t",
            "TABLE",
            "CREATE TABLE a (table text)",
            "TABLE a WHERE b",
            "TABLE a b",
            "EXPLAIN SELECT f(a) table FROM b",
            "INSERT INTO TABLE a SELECT 1",
        ] {
            assert_eq!(known(text).expect(text), None, "{text}");
        }
    }

    #[test]
    fn what_says_nothing_is_left_out() {
        for (text, seen) in [
            ("SELECT 1 FROM ONLY a JOIN only (b)", "SELECT 1 FROM      a JOIN       b "),
            ("UPDATE ONLY a SET b = 1", "UPDATE      a SET b = 1"),
            (
                "SELECT sum(a) OVER (ROWS 1 PRECEDING EXCLUDE NO OTHERS)",
                "SELECT sum(a) OVER (ROWS 1 PRECEDING                  )",
            ),
        ] {
            assert_eq!(known(text).expect(text).as_deref(), Some(seen));
            parse_one(text).expect(text);
        }
        let rows = "SELECT a FROM b FETCH FIRST 3 ROWS ONLY";
        assert_eq!(known(rows).expect("valid"), None);
    }

    #[test]
    fn like_all_is_an_operator() {
        let text = "SELECT a NOT LIKE ALL (ARRAY['b']) AND a ilike /* x */ all (b)";
        let seen = known(text).expect(text);
        assert_eq!(seen.as_deref(), Some("SELECT a !~~ ALL (ARRAY['b']) AND a ~~* all (b)"));
        parse_one(text).expect(text);
        assert_eq!(known("SELECT a LIKE 'x' UNION ALL SELECT b").expect("valid"), None);
    }

    #[test]
    fn digits_of_an_interval_stand_behind_it() {
        let text = "SELECT interval(3) '1.5 s', INTERVAL ( 0 ) 'it''s' FROM t";
        let seen = "SELECT interval '1.5 s' SECOND(3), INTERVAL  'it''s' SECOND(0) FROM t";
        assert_eq!(known(text).expect(text).as_deref(), Some(seen));
        parse_one(text).expect(text);
        assert_eq!(known("SELECT '1'::interval(3), interval '1'").expect("valid"), None);
        // Comments stay where they are, and end where they do.
        for (text, seen) in [
            (
                "SELECT interval(0) '1.5' -- in 'seconds'\n, a FROM t",
                "SELECT interval '1.5' SECOND(0) -- in 'seconds'\n, a FROM t",
            ),
            (
                "DELETE FROM t WHERE a < interval(1) /* of */ '''' -- 'x'\nAND b",
                "DELETE FROM t WHERE a < interval '''' SECOND(1) -- 'x'\nAND b",
            ),
            ("SELECT interval(2) ''/*'*/, 1", "SELECT interval '' SECOND(2)/*'*/, 1"),
        ] {
            assert_eq!(known(text).expect(text).as_deref(), Some(seen));
            parse_one(text).expect(text);
        }
    }

    #[test]
    fn row_locks_are_of_two_kinds_for_a_table_each() {
        for (text, seen) in [
            ("SELECT 1 FROM a for no key update", "SELECT 1 FROM a for        update"),
            ("SELECT 1 FROM a FOR KEY SHARE NOWAIT", "SELECT 1 FROM a FOR     SHARE NOWAIT"),
            (
                "SELECT 1 FROM a, b FOR SHARE OF a, b SKIP LOCKED",
                "SELECT 1 FROM a, b FOR SHARE OF a FOR SHARE OF  b SKIP LOCKED",
            ),
        ] {
            assert_eq!(known(text).expect(text).as_deref(), Some(seen));
            parse_one(text).expect(text);
        }
    }

    #[test]
    fn other_texts_stay_as_they_are() {
        for text in [
            "SELECT 'merge nothing'",
            "SELECT merge, nothing FROM t",
            "INSERT INTO t SELECT rank() OVER (PARTITION BY a) FROM s",
            "INSERT INTO partition VALUES ('insert')",
            "SELECT a FROM t FOR UPDATE OF t",
            "SELECT 'for no key update of a, b'",
        ] {
            assert_eq!(known(text).expect(text), None, "{text}");
        }
    }
}
