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

/// A privilege as it was granted: written `SELECT`, or `SELECT*` if it may be granted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Granted {
    privilege: Privilege,
    with_grant_option: bool,
}

impl FromStr for Granted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let name = text.strip_suffix('*').unwrap_or(text);
        let privilege = Privilege::parse(name).ok_or_else(|| format!("no privilege: {text:?}"))?;
        Ok(Self { privilege, with_grant_option: name.len() < text.len() })
    }
}

impl Display for Granted {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.privilege, if self.with_grant_option { "*" } else { "" })
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
/// entry: it may do everything. In JSON: `{"ann": ["SELECT", "INSERT*"]}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Grants(BTreeMap<String, BTreeSet<Granted>>);

impl Grants {
    /// Everybody may do this much, nobody more.
    pub fn to_public(privileges: &[Privilege]) -> Self {
        let mut grants = Self::default();
        grants.grant(PUBLIC_ROLE, privileges, false);
        grants
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Everyone with an entry.
    pub fn grantees(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// All entries: who, what, and whether it may be granted on.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Privilege, bool)> {
        (self.0.iter()).flat_map(|(role, granted)| {
            granted.iter().map(move |g| (role.as_str(), g.privilege, g.with_grant_option))
        })
    }

    pub fn allows(&self, role: &str, privilege: Privilege) -> bool {
        self.0.get(role).is_some_and(|granted| granted.iter().any(|g| g.privilege == privilege))
    }

    pub fn allows_granting(&self, role: &str, privilege: Privilege) -> bool {
        let granted = Granted { privilege, with_grant_option: true };
        self.0.get(role).is_some_and(|all| all.contains(&granted))
    }

    pub fn grant(&mut self, role: &str, privileges: &[Privilege], with_grant_option: bool) {
        if privileges.is_empty() {
            return;
        }
        let granted = self.0.entry(role.to_owned()).or_default();
        for &privilege in privileges {
            let stronger = Granted { privilege, with_grant_option: true };
            if with_grant_option {
                granted.remove(&Granted { privilege, with_grant_option: false });
                granted.insert(stronger);
            } else if !granted.contains(&stronger) {
                granted.insert(Granted { privilege, with_grant_option: false });
            }
        }
    }

    /// Takes privileges back, or with `option_only` just the right to grant them on.
    pub fn revoke(&mut self, role: &str, privileges: &[Privilege], option_only: bool) {
        let Some(granted) = self.0.get_mut(role) else { return };
        for &privilege in privileges {
            let with_option = granted.remove(&Granted { privilege, with_grant_option: true });
            let without = Granted { privilege, with_grant_option: false };
            if !option_only {
                granted.remove(&without);
            } else if with_option {
                granted.insert(without);
            }
        }
        if granted.is_empty() {
            self.0.remove(role);
        }
    }

    /// Takes everything back from a role.
    pub fn forget(&mut self, role: &str) {
        self.0.remove(role);
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
        let grantor = name(owner);
        let own = (!all.is_empty()).then(|| format!("{grantor}={letters}/{grantor}"));
        let others = self.0.iter().filter(|(role, _)| *role != owner).map(|(role, granted)| {
            let letters: String = (granted.iter())
                .map(|g| format!("{}{}", g.privilege.letter(), &"*"[..g.with_grant_option.into()]))
                .collect();
            format!("{}={letters}/{grantor}", name(role))
        });
        own.into_iter().chain(others).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_read_back_as_written() {
        let mut grants = Grants::to_public(&[Privilege::Usage]);
        grants.grant("ann", &[Privilege::Select], true);
        grants.grant("ann", &[Privilege::Select, Privilege::Insert], false);
        let json = serde_json::to_string(&grants).expect("serialises");
        assert_eq!(json, r#"{"ann":["INSERT","SELECT*"],"public":["USAGE"]}"#);
        assert_eq!(serde_json::from_str::<Grants>(&json).expect("reads back"), grants);
        assert!(serde_json::from_str::<Grants>(r#"{"ann":["FLY"]}"#).is_err());
        assert_eq!(grants.acl("bob", Privilege::SCHEMA), ["bob=UC/bob", "ann=ar*/bob", "=U/bob"]);
    }

    #[test]
    fn revoking_takes_what_was_granted() {
        let mut grants = Grants::default();
        grants.grant("ann", &[Privilege::Select, Privilege::Insert], true);
        grants.revoke("ann", &[Privilege::Select], true);
        assert!(grants.allows("ann", Privilege::Select));
        assert!(!grants.allows_granting("ann", Privilege::Select));
        grants.revoke("ann", &[Privilege::Select, Privilege::Insert], false);
        assert!(grants.is_empty());
    }
}
