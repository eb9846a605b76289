//! Wrong histories: the checker finds what is wrong with each, and nothing in the right one beside it.

use std::collections::HashMap;

use crate::checker::{Term, Work, housekeepers, leaders, rows, setting, submitted};
use crate::history::{Entry, Op, Outcome, Table, Violation};
use crate::linear;

fn entry(start: u64, op: Op, outcome: Outcome) -> Entry {
    Entry { session: 1, daemon: 0, strong: true, op, start, end: start + 5, outcome }
}

fn insert(start: u64, keys: &[i64], outcome: Outcome) -> Entry {
    entry(start, Op::Insert(Table::Events, keys.to_vec()), outcome)
}

fn read(start: u64, keys: &[i64]) -> Entry {
    entry(start, Op::Read(Table::Events, 0, 100), Outcome::Keys(keys.to_vec()))
}

fn delete(start: u64, key: i64, outcome: Outcome) -> Entry {
    entry(start, Op::Delete(Table::Events, key), outcome)
}

fn refused(code: &str) -> Outcome {
    Outcome::Refused(code.to_owned())
}

fn unknown() -> Outcome {
    Outcome::Unknown("the connection was lost".to_owned())
}

#[track_caller]
fn found(wrong: &[Violation], what: &str) {
    assert!(wrong.iter().any(|violation| violation.what.contains(what)), "{what}: {wrong:?}");
}

#[track_caller]
fn nothing(wrong: Vec<Violation>) {
    assert!(wrong.is_empty(), "{wrong:?}");
}

const DONE: Outcome = Outcome::Done(1);

#[test]
fn a_right_history_is_right() {
    let history = [
        insert(0, &[1], DONE),
        insert(0, &[2, 3], unknown()),
        insert(0, &[4], refused("40001")),
        insert(10, &[5, 6], Outcome::Done(2)),
        read(20, &[1, 5, 6]),
        read(20, &[1, 2, 3, 5, 6]),
        delete(30, 1, DONE),
        delete(30, 5, unknown()),
        read(30, &[1, 2, 3, 5, 6]),
        read(40, &[2, 3, 6]),
        read(40, &[2, 3, 5, 6]),
    ];
    nothing(rows(&history, Table::Events));
}

#[test]
fn lost_doubled_refused_and_torn_rows_are_found() {
    let one = insert(0, &[1], DONE);
    found(
        &rows(&[one.clone(), read(10, &[])], Table::Events),
        "1 was acknowledged and is not there",
    );
    found(&rows(&[one.clone(), read(10, &[1, 1])], Table::Events), "1 is there twice");
    let no = insert(0, &[1], refused("58030"));
    found(&rows(&[no, read(10, &[1])], Table::Events), "1 was refused and is there");
    found(&rows(&[read(10, &[7])], Table::Events), "7 was never inserted");
    let late = insert(20, &[1], DONE);
    found(&rows(&[late, read(10, &[1])], Table::Events), "before its time");
    let two = insert(0, &[1, 2], unknown());
    found(&rows(&[two, read(10, &[1])], Table::Events), "not all of [1, 2]");
    let perhaps = insert(0, &[1], unknown());
    let flickers = [perhaps, read(10, &[]), read(20, &[1]), read(30, &[])];
    found(&rows(&flickers, Table::Events), "1 was there before and is gone");
    let gone = [one.clone(), delete(10, 1, DONE), read(20, &[1])];
    found(&rows(&gone, Table::Events), "1 was deleted and is there");
    let missed = [one.clone(), delete(10, 1, Outcome::Done(0))];
    found(&rows(&missed, Table::Events), "DELETE does not find it");
    let kept = [one, delete(10, 1, refused("40001")), read(20, &[])];
    found(&rows(&kept, Table::Events), "1 was acknowledged and is not there");
}

#[test]
fn a_session_sees_what_it_has_written() {
    let weak = Entry { strong: false, ..read(10, &[]) };
    let other = Entry { session: 2, ..weak.clone() };
    let one = insert(0, &[1], DONE);
    nothing(rows(&[one.clone(), other], Table::Events));
    found(&rows(&[one, weak], Table::Events), "1 was acknowledged and is not there");
}

#[test]
fn submitted_queries_that_run_twice_or_never_are_found() {
    let submit = |key, outcome| entry(0, Op::Submit(key), outcome);
    let id = |id: &str| Outcome::Id(id.to_owned());
    let states = |all: &[(&str, &str)]| -> HashMap<String, String> {
        all.iter().map(|(id, state)| ((*id).to_owned(), (*state).to_owned())).collect()
    };
    let judge = |history: &[Entry], all: &[(&str, &str)], keys: &[i64]| {
        let (mut owed, mut wrong) = submitted(history, &states(all));
        let op = Op::Read(Table::Done, 0, 100);
        owed.push(entry(1000, op, Outcome::Keys(keys.to_vec())));
        wrong.extend(rows(&owed, Table::Done));
        wrong
    };
    let twice = [submit(1, unknown()), submit(1, id("x"))];
    nothing(judge(&twice, &[("x", "succeeded")], &[1]));
    found(&judge(&twice, &[("x", "succeeded")], &[1, 1]), "1 is there twice");
    found(&judge(&twice, &[("x", "succeeded")], &[]), "1 was acknowledged and is not there");
    found(&judge(&twice, &[("x", "failed")], &[1]), "1 was refused and is there");
    found(&judge(&twice, &[("x", "running")], &[]), "does not end");
    let several = [submit(1, id("x")), submit(1, id("y"))];
    found(&judge(&several, &[("x", "succeeded"), ("y", "succeeded")], &[1]), "several queries");
    nothing(judge(&[submit(1, unknown())], &[], &[]));
    nothing(judge(&[submit(1, unknown())], &[], &[1]));
}

#[test]
fn names_that_cannot_be_so_are_found() {
    let name = || "t".to_owned();
    let create = |start, value, outcome| entry(start, Op::Create(name(), value), outcome);
    let drop = |start, outcome| entry(start, Op::Drop(name()), outcome);
    let look = |start, held| entry(start, Op::Look(name()), Outcome::Held(held));
    let fine = |history: &[Entry]| assert_eq!(linear::check(history), (Vec::new(), 0));
    let wrong = |history: &[Entry]| found(&linear::check(history).0, "cannot be");
    fine(&[create(0, 1, DONE), look(10, Some(1)), drop(20, DONE), look(30, None)]);
    fine(&[create(0, 1, DONE), create(10, 2, refused("42P07")), drop(20, DONE)]);
    // At the same time, in whichever order.
    fine(&[create(0, 1, DONE), drop(2, DONE), create(3, 2, DONE), look(10, Some(2))]);
    fine(&[create(0, 1, unknown()), look(10, None), look(20, Some(1)), look(30, Some(1))]);
    fine(&[create(0, 1, refused("40001")), look(10, None)]);
    wrong(&[create(0, 1, DONE), create(10, 2, DONE)]);
    wrong(&[create(0, 1, DONE), look(10, None)]);
    wrong(&[create(0, 1, DONE), look(10, Some(2))]);
    wrong(&[create(0, 1, DONE), drop(10, DONE), drop(20, DONE)]);
    wrong(&[create(0, 1, DONE), drop(10, DONE), create(20, 2, refused("42P07"))]);
    wrong(&[create(0, 1, refused("40001")), look(10, Some(1))]);
    wrong(&[create(0, 1, unknown()), look(10, Some(1)), look(20, None)]);
    wrong(&[create(0, 1, DONE), drop(10, unknown()), look(20, None), look(30, Some(1))]);
}

#[test]
fn a_setting_that_goes_back_is_found() {
    let set = |start, value, outcome| entry(start, Op::Set(value), outcome);
    let history =
        [set(0, 1, DONE), set(10, 2, DONE), set(20, 3, unknown()), set(20, 4, refused("40001"))];
    nothing(setting(&history, 2));
    nothing(setting(&history, 3));
    found(&setting(&history, 1), "not what was set last");
    found(&setting(&history, 4), "not what was set last");
}

#[test]
fn two_who_lead_or_keep_house_are_found() {
    let term = |daemon: &str, node: &str, from| {
        let (daemon, node) = (daemon.to_owned(), node.to_owned());
        Term { daemon, node, from }
    };
    nothing(leaders(&[term("a", "01", 0), term("b", "02", 1), term("a", "03", 2)]));
    found(&leaders(&[term("a", "02", 0), term("b", "01", 1)]), "leads after");
    found(&leaders(&[term("a", "01", 0), term("b", "01", 1)]), "leads after");
    let work = |daemon: &str, start, end| Work {
        daemon: daemon.to_owned(),
        object: "t".to_owned(),
        start,
        end,
    };
    nothing(housekeepers(&[work("a", 0, 5), work("b", 6, 9), work("a", 10, 12)], 1000));
    found(&housekeepers(&[work("a", 0, 5), work("b", 4, 9)], 1000), "two keep house");
}

#[test]
fn a_sum_that_changes_is_found() {
    let sums = |sums: &[i64]| [entry(0, Op::Sum, Outcome::Keys(sums.to_vec()))];
    nothing(checker_sums(&sums(&[100, 50])));
    found(&checker_sums(&sums(&[99, 50])), "instead of");
    found(&checker_sums(&sums(&[100, 51])), "instead of");
}

fn checker_sums(history: &[Entry]) -> Vec<Violation> {
    crate::checker::sums(history, &Op::Sum, &[100, 50])
}
