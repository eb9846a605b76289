//! Who may do what: privileges, and how an object's record holds them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The grantee that stands for every role. No role can have this name.
pub const PUBLIC_ROLE: &str = "public";

/// What a grant allows. Names and letters are PostgreSQL's (its manual, table 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Privilege {
    Insert,
    Select,
    Update,
    Delete,
    Truncate,
    References,
    Trigger,
    Usage,
    Create,
    Temporary,
    Connect,
}

impl Privilege {
    pub const TABLE: &[Self] = &[
        Self::Insert,
        Self::Select,
        Self::Update,
        Self::Delete,
        Self::Truncate,
        Self::References,
        Self::Trigger,
    ];
    pub const COLUMN: &[Self] = &[Self::Insert, Self::Select, Self::Update, Self::References];
    pub const SCHEMA: &[Self] = &[Self::Usage, Self::Create];
    pub const DATABASE: &[Self] = &[Self::Create, Self::Temporary, Self::Connect];

    const NAMES: &[(Self, &str, char)] = &[
        (Self::Insert, "INSERT", 'a'),
        (Self::Select, "SELECT", 'r'),
        (Self::Update, "UPDATE", 'w'),
        (Self::Delete, "DELETE", 'd'),
        (Self::Truncate, "TRUNCATE", 'D'),
        (Self::References, "REFERENCES", 'x'),
        (Self::Trigger, "TRIGGER", 't'),
        (Self::Usage, "USAGE", 'U'),
        (Self::Create, "CREATE", 'C'),
        (Self::Temporary, "TEMPORARY", 'T'),
        (Self::Connect, "CONNECT", 'c'),
    ];

    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|entry| entry.0 == self).map_or("", |entry| entry.1)
    }

    fn letter(self) -> char {
        Self::NAMES.iter().find(|entry| entry.0 == self).map_or('?', |entry| entry.2)
    }

    /// By name, whatever its case.
    pub fn parse(name: &str) -> Option<Self> {
        let name = if name.eq_ignore_ascii_case("TEMP") { "TEMPORARY" } else { name };
        let found = Self::NAMES.iter().find(|entry| entry.1.eq_ignore_ascii_case(name));
        found.map(|entry| entry.0)
    }
}

impl Display for Privilege {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// In whose name a privilege was granted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grantor {
    /// Whoever owns the object: by itself, by a member of it or by a superuser.
    Owner,
    /// Another role, by virtue of its grant option.
    Role(String),
}

/// A privilege as it was granted: written `SELECT`, or `SELECT*` if it may be granted on, and
/// `SELECT/ann` if somebody else than the owner granted it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Granted {
    grantor: Grantor,
    privilege: Privilege,
    with_grant_option: bool,
}

impl Granted {
    fn new(grantor: &Grantor, privilege: Privilege, with_grant_option: bool) -> Self {
        Self { grantor: grantor.clone(), privilege, with_grant_option }
    }
}

impl FromStr for Granted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (what, grantor) = match text.split_once('/') {
            Some((what, role)) => (what, Grantor::Role(role.to_owned())),
            None => (text, Grantor::Owner),
        };
        let name = what.strip_suffix('*').unwrap_or(what);
        let privilege = Privilege::parse(name).ok_or_else(|| format!("no privilege: {text:?}"))?;
        Ok(Self { grantor, privilege, with_grant_option: name.len() < what.len() })
    }
}

impl Display for Granted {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.privilege, if self.with_grant_option { "*" } else { "" })?;
        match &self.grantor {
            Grantor::Owner => Ok(()),
            Grantor::Role(role) => write!(f, "/{role}"),
        }
    }
}

impl Serialize for Granted {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Granted {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What each role was granted on one object, by role; [`PUBLIC_ROLE`] for all. The owner needs no
/// entry: it may do everything. In JSON: `{"ann": ["SELECT", "INSERT*", "UPDATE/bob"]}`.
///
/// Whoever granted something is the owner or may still grant it: [`Grants::cut_loose`] keeps that
/// true, and [`Grants::is_circular`] keeps two roles from holding up each other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Grants(BTreeMap<String, BTreeSet<Granted>>);

/// One privilege of one role.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    pub grantee: &'a str,
    pub grantor: &'a Grantor,
    pub privilege: Privilege,
    pub with_grant_option: bool,
}

impl Grants {
    /// Everybody may do this much, nobody more.
    pub fn to_public(privileges: &[Privilege]) -> Self {
        let mut grants = Self::default();
        grants.grant(&Grantor::Owner, PUBLIC_ROLE, privileges, false);
        grants
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Everyone with an entry.
    pub fn grantees(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Whether a role was granted something, or granted it.
    pub fn names(&self, role: &str) -> bool {
        let granted_it =
            |entry: Entry<'_>| matches!(entry.grantor, Grantor::Role(by) if by == role);
        self.0.contains_key(role) || self.iter().any(granted_it)
    }

    pub fn iter(&self) -> impl Iterator<Item = Entry<'_>> {
        (self.0.iter()).flat_map(|(role, granted)| {
            granted.iter().map(move |g| Entry {
                grantee: role,
                grantor: &g.grantor,
                privilege: g.privilege,
                with_grant_option: g.with_grant_option,
            })
        })
    }

    pub fn allows(&self, role: &str, privilege: Privilege) -> bool {
        self.0.get(role).is_some_and(|granted| granted.iter().any(|g| g.privilege == privilege))
    }

    pub fn allows_granting(&self, role: &str, privilege: Privilege) -> bool {
        let option = |g: &Granted| g.privilege == privilege && g.with_grant_option;
        self.0.get(role).is_some_and(|all| all.iter().any(option))
    }

    pub fn grant(
        &mut self,
        grantor: &Grantor,
        role: &str,
        privileges: &[Privilege],
        with_grant_option: bool,
    ) {
        if privileges.is_empty() {
            return;
        }
        let granted = self.0.entry(role.to_owned()).or_default();
        for &privilege in privileges {
            let stronger = Granted::new(grantor, privilege, true);
            let weaker = Granted::new(grantor, privilege, false);
            if with_grant_option {
                granted.remove(&weaker);
                granted.insert(stronger);
            } else if !granted.contains(&stronger) {
                granted.insert(weaker);
            }
        }
    }

    /// Takes privileges back that were granted in this name, or with `option_only` just the right
    /// to grant them on.
    pub fn revoke(
        &mut self,
        grantor: &Grantor,
        role: &str,
        privileges: &[Privilege],
        option_only: bool,
    ) {
        let Some(granted) = self.0.get_mut(role) else { return };
        for &privilege in privileges {
            let with_option = granted.remove(&Granted::new(grantor, privilege, true));
            let without = Granted::new(grantor, privilege, false);
            if !option_only {
                granted.remove(&without);
            } else if with_option {
                granted.insert(without);
            }
        }
        self.0.retain(|_, granted| !granted.is_empty());
    }

    /// Takes back what was granted by those who may no longer grant it, here or by the grants
    /// `above` (a column's table). Returns whether there was any.
    pub fn cut_loose(&mut self, above: Option<&Self>) -> bool {
        let mut any = false;
        loop {
            let now = self.clone();
            let holds = |granted: &Granted| match &granted.grantor {
                Grantor::Owner => true,
                Grantor::Role(role) => (above.into_iter().chain([&now]))
                    .any(|grants| grants.allows_granting(role, granted.privilege)),
            };
            self.0.values_mut().for_each(|granted| granted.retain(holds));
            self.0.retain(|_, granted| !granted.is_empty());
            if *self == now {
                return any;
            }
            any = true;
        }
    }

    /// Whether a role may grant a privilege only because another one, directly or through others,
    /// granted it: to that one it must not be granted back.
    pub fn is_circular(
        &self,
        above: Option<&Self>,
        grantor: &Grantor,
        to: &str,
        privilege: Privilege,
    ) -> bool {
        let Grantor::Role(grantor) = grantor else { return false };
        let without = |grants: &Self, above: Option<&Self>| {
            let mut rest = grants.clone();
            if let Some(granted) = rest.0.get_mut(to) {
                granted.retain(|g| g.privilege != privilege);
            }
            rest.cut_loose(above);
            rest
        };
        let above = above.map(|above| without(above, None));
        let here = without(self, above.as_ref());
        !above.iter().chain([&here]).any(|grants| grants.allows_granting(grantor, privilege))
    }

    /// Takes everything back from a role, and what it granted.
    pub fn forget(&mut self, role: &str, above: Option<&Self>) {
        self.0.remove(role);
        for granted in self.0.values_mut() {
            granted.retain(|g| !matches!(&g.grantor, Grantor::Role(by) if by == role));
        }
        self.0.retain(|_, granted| !granted.is_empty());
        self.cut_loose(above);
    }

    /// What a role was granted and has granted is another's from now on: its new name.
    pub fn rename(&mut self, role: &str, new: &str) {
        if let Some(granted) = self.0.remove(role) {
            self.0.insert(new.to_owned(), granted);
        }
        for granted in self.0.values_mut() {
            let renamed = std::mem::take(granted).into_iter().map(|mut one| {
                if matches!(&one.grantor, Grantor::Role(by) if by == role) {
                    one.grantor = Grantor::Role(new.to_owned());
                }
                one
            });
            *granted = renamed.collect();
        }
    }

    /// What a role granted that now owns the object, it granted as its owner.
    pub fn change_owner(&mut self, owner: &str) {
        for granted in self.0.values_mut() {
            let own = |g: &Granted| matches!(&g.grantor, Grantor::Role(by) if by == owner);
            let (theirs, mut rest): (BTreeSet<_>, BTreeSet<_>) =
                std::mem::take(granted).into_iter().partition(own);
            for one in theirs {
                let stronger = Granted::new(&Grantor::Owner, one.privilege, true);
                let weaker = Granted::new(&Grantor::Owner, one.privilege, false);
                if one.with_grant_option {
                    rest.remove(&weaker);
                    rest.insert(stronger);
                } else if !rest.contains(&stronger) {
                    rest.insert(weaker);
                }
            }
            *granted = rest;
        }
    }

    /// The same in PostgreSQL's notation, `ann=r*w/owner`, with the owner's own entry for `all`
    /// first; columns have none.
    pub fn acl(&self, owner: &str, all: &[Privilege]) -> Vec<String> {
        let name = |role: &str| match role {
            PUBLIC_ROLE => String::new(),
            role if role.chars().all(|c| c.is_alphanumeric() || c == '_') => role.to_owned(),
            role => format!("\"{}\"", role.replace('"', "\"\"")),
        };
        let letters: String = all.iter().map(|privilege| privilege.letter()).collect();
        let owner_name = name(owner);
        let own = (!all.is_empty()).then(|| format!("{owner_name}={letters}/{owner_name}"));
        let mut by_grantor: BTreeMap<(&str, &Grantor), String> = BTreeMap::new();
        for entry in self.iter().filter(|entry| entry.grantee != owner) {
            let letters = by_grantor.entry((entry.grantee, entry.grantor)).or_default();
            letters.push(entry.privilege.letter());
            letters.push_str(&"*"[..entry.with_grant_option.into()]);
        }
        let others = by_grantor.into_iter().map(|((grantee, grantor), letters)| {
            let grantor = match grantor {
                Grantor::Owner => owner_name.clone(),
                Grantor::Role(role) => name(role),
            };
            format!("{}={letters}/{grantor}", name(grantee))
        });
        own.into_iter().chain(others).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: Grantor = Grantor::Owner;

    fn role(name: &str) -> Grantor {
        Grantor::Role(name.to_owned())
    }

    #[test]
    fn grants_read_back_as_written() {
        let mut grants = Grants::to_public(&[Privilege::Usage]);
        grants.grant(&OWNER, "ann", &[Privilege::Select], true);
        grants.grant(&OWNER, "ann", &[Privilege::Select, Privilege::Insert], false);
        grants.grant(&role("cid"), "ann", &[Privilege::Insert], false);
        let json = serde_json::to_string(&grants).expect("serialises");
        assert_eq!(json, r#"{"ann":["INSERT","SELECT*","INSERT/cid"],"public":["USAGE"]}"#);
        assert_eq!(serde_json::from_str::<Grants>(&json).expect("reads back"), grants);
        assert!(serde_json::from_str::<Grants>(r#"{"ann":["FLY"]}"#).is_err());
        let acl = ["bob=UC/bob", "ann=ar*/bob", "ann=a/cid", "=U/bob"];
        assert_eq!(grants.acl("bob", Privilege::SCHEMA), acl);
    }

    #[test]
    fn revoking_takes_what_was_granted() {
        let mut grants = Grants::default();
        grants.grant(&OWNER, "ann", &[Privilege::Select, Privilege::Insert], true);
        grants.revoke(&OWNER, "ann", &[Privilege::Select], true);
        assert!(grants.allows("ann", Privilege::Select));
        assert!(!grants.allows_granting("ann", Privilege::Select));
        grants.revoke(&role("cid"), "ann", &[Privilege::Select], false);
        assert!(grants.allows("ann", Privilege::Select), "somebody else granted it");
        grants.revoke(&OWNER, "ann", &[Privilege::Select, Privilege::Insert], false);
        assert!(grants.is_empty());
    }

    #[test]
    fn what_hangs_on_a_revoked_option_goes_with_it() {
        let select = [Privilege::Select];
        let mut grants = Grants::default();
        grants.grant(&OWNER, "ann", &select, true);
        grants.grant(&role("ann"), "bob", &select, true);
        grants.grant(&role("bob"), "cid", &select, false);
        assert!(grants.is_circular(None, &role("bob"), "ann", Privilege::Select));
        assert!(!grants.is_circular(None, &role("bob"), "cid", Privilege::Select));
        assert!(!grants.cut_loose(None));
        let mut column = Grants::default();
        column.grant(&role("bob"), "dan", &select, false);
        assert!(!column.cut_loose(Some(&grants)));

        let mut twice = grants.clone();
        twice.grant(&OWNER, "bob", &select, true);
        twice.revoke(&OWNER, "ann", &select, false);
        assert!(twice.cut_loose(None));
        assert_eq!(twice.acl("own", &[]), ["bob=r*/own", "cid=r/bob"]);

        grants.revoke(&OWNER, "ann", &select, true);
        assert!(grants.cut_loose(None));
        assert_eq!(grants.acl("own", &[]), ["ann=r/own"]);
        assert!(column.cut_loose(Some(&grants)) && column.is_empty());
    }

    #[test]
    fn a_new_owner_granted_as_an_owner_does() {
        let mut grants = Grants::default();
        grants.grant(&OWNER, "ann", &[Privilege::Select], true);
        grants.grant(&role("ann"), "bob", &[Privilege::Select], false);
        grants.change_owner("ann");
        assert_eq!(grants.acl("ann", &[]), ["bob=r/ann"]);
        grants.forget("ann", None);
        assert!(grants.allows("bob", Privilege::Select));
    }
}
