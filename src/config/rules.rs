//! Host rules: who may come in from where, and how they prove who they are.
//!
//! They are the lines of PostgreSQL's `pg_hba.conf` (its chapter "The pg_hba.conf File"), without
//! what does not exist here: no `local` lines, files, host names, patterns, and none of the methods
//! beyond [`Method`]. What is not understood is refused, never skipped.

use std::fmt::{self, Display, Formatter};
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// Rules in their order: the first that fits a connection decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules(Vec<Rule>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    encryption: Encryption,
    databases: Vec<Word>,
    users: Vec<Word>,
    address: Address,
    pub method: Method,
    /// What else is asked of a client: a certificate.
    pub certificate: Option<Certificate>,
    text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encryption {
    Any,
    Required,
    Without,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Trust,
    Reject,
    /// A password, by SCRAM-SHA-256 or SCRAM-SHA-256-PLUS.
    Scram,
    /// A client certificate alone.
    Certificate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certificate {
    /// Signed by one of `tls.client_ca`.
    Valid,
    /// And its common name is the user.
    NamesUser,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Address {
    All,
    SameHost,
    Network(IpNet),
}

/// A part of a line. What stands in quotes is a name, whatever it spells.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Word {
    text: String,
    quoted: bool,
}

/// A connection that asks to come in.
#[derive(Clone, Copy, Debug)]
pub struct Visitor<'a> {
    pub address: IpAddr,
    /// The address it has reached.
    pub server: IpAddr,
    pub encrypted: bool,
    pub user: &'a str,
    pub database: &'a str,
}

/// What the rest of the configuration offers to rules.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings {
    pub listens_on: IpAddr,
    pub tls: bool,
    pub client_certificates: bool,
}

impl Rules {
    /// The rule for a connection. `is_member` says whether its user is, directly or not, a member
    /// of a role.
    pub fn find(&self, visitor: &Visitor<'_>, is_member: impl Fn(&str) -> bool) -> Option<&Rule> {
        self.0.iter().find(|rule| rule.fits(visitor, &is_member))
    }

    /// Whether a role has what some rule asks of it, wherever its connection comes from and whichever database it
    /// is for: nothing, a certificate, which is made outside of here, or a password.
    pub fn may_let_in(
        &self,
        user: &str,
        has_password: bool,
        is_member: impl Fn(&str) -> bool,
    ) -> bool {
        for rule in self.0.iter().filter(|rule| rule.is_for(user, &is_member)) {
            match rule.method {
                Method::Trust | Method::Certificate => return true,
                Method::Scram if has_password => return true,
                // None behind it is ever looked at.
                Method::Scram | Method::Reject if rule.is_for_every_connection() => return false,
                Method::Scram | Method::Reject => {}
            }
        }
        false
    }

    /// Whether memberships decide about any rule.
    pub fn name_groups(&self) -> bool {
        let group = |word: &Word| {
            word.group().is_some() || matches!(word.keyword(), Some("samerole" | "samegroup"))
        };
        self.0.iter().any(|rule| rule.databases.iter().chain(&rule.users).any(group))
    }

    /// Refuses what would leave the door open, and what would keep it shut for everybody.
    pub fn check(&self, around: Surroundings) -> Result<(), String> {
        for rule in &self.0 {
            let text = &rule.text;
            let proof = rule.certificate == Some(Certificate::NamesUser);
            let blind = rule.method == Method::Trust && !proof;
            if blind && rule.address.reaches_beyond_loopback() {
                return Err(format!(
                    "the rule \"{text}\" would let in anybody from beyond this machine without a \
                     password: write scram-sha-256 in place of trust"
                ));
            }
            if rule.encryption == Encryption::Required && !around.tls {
                return Err(format!(
                    "the rule \"{text}\" is for connections with TLS, which is not configured: \
                     set tls.certificate and tls.key"
                ));
            }
            if rule.certificate.is_some() && !around.client_certificates {
                return Err(format!(
                    "the rule \"{text}\" asks for client certificates, but nothing says whose to \
                     accept: set tls.client_ca"
                ));
            }
        }
        let from_outside =
            |rule: &Rule| rule.method != Method::Reject && rule.address.reaches_beyond_loopback();
        if !around.listens_on.is_loopback() && !self.0.iter().any(from_outside) {
            return Err(format!(
                "postgres listens on {}, but no rule lets anybody in from beyond this machine: add \
                 one such as \"host all all 10.0.0.0/8 scram-sha-256\", with the first password in \
                 connections.superuser_password_file, or listen on 127.0.0.1",
                around.listens_on
            ));
        }
        Ok(())
    }
}

impl Rule {
    fn fits(&self, visitor: &Visitor<'_>, is_member: &impl Fn(&str) -> bool) -> bool {
        let encryption = match self.encryption {
            Encryption::Any => true,
            Encryption::Required => visitor.encrypted,
            Encryption::Without => !visitor.encrypted,
        };
        let database = |word: &Word| match word.keyword() {
            Some("all") => true,
            Some("sameuser") => visitor.database == visitor.user,
            Some("samerole" | "samegroup") => is_member(visitor.database),
            _ => word.text == visitor.database,
        };
        encryption
            && self.address.contains(visitor)
            && self.databases.iter().any(database)
            && self.is_for(visitor.user, is_member)
    }

    fn is_for(&self, user: &str, is_member: &impl Fn(&str) -> bool) -> bool {
        self.users.iter().any(|word| match (word.keyword(), word.group()) {
            (Some("all"), _) => true,
            (_, Some(group)) => is_member(group),
            _ => word.text == user,
        })
    }

    /// Whether it fits whatever connection its users have.
    fn is_for_every_connection(&self) -> bool {
        self.encryption == Encryption::Any
            && self.address == Address::All
            && self.databases.iter().any(|word| word.keyword() == Some("all"))
    }
}

impl Address {
    fn contains(&self, visitor: &Visitor<'_>) -> bool {
        // IPv4 within IPv6, as a socket that takes both has it, counts as IPv4.
        let address = visitor.address.to_canonical();
        match self {
            Self::All => true,
            // Nobody else can hold a connection with both ends at one address.
            Self::SameHost => address.is_loopback() || address == visitor.server.to_canonical(),
            Self::Network(network) => network.contains(&address),
        }
    }

    fn reaches_beyond_loopback(&self) -> bool {
        match self {
            Self::All => true,
            Self::SameHost => false,
            Self::Network(network) => {
                !(network.network().is_loopback() && network.broadcast().is_loopback())
            }
        }
    }
}

impl Word {
    fn keyword(&self) -> Option<&str> {
        (!self.quoted).then_some(self.text.as_str())
    }

    fn group(&self) -> Option<&str> {
        self.keyword()?.strip_prefix('+')
    }
}

impl FromStr for Rules {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let lines = split(text)?;
        lines.into_iter().map(rule).collect::<Result<_, _>>().map(Self)
    }
}

impl Display for Rules {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let texts: Vec<&str> = self.0.iter().map(|rule| rule.text.as_str()).collect();
        f.write_str(&texts.join("; "))
    }
}

impl Display for Rule {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A line as fields, each a list of words, with its text.
#[derive(Debug, Default)]
struct Line {
    fields: Vec<Vec<Word>>,
    text: String,
}

/// Splits at newlines and semicolons, drops comments, and takes each line apart.
fn split(text: &str) -> Result<Vec<Line>, String> {
    let mut lines = Vec::new();
    let mut line = Line::default();
    let mut word: Option<Word> = None;
    // After a comma, blanks do not end the field.
    let mut list = false;
    let mut characters = text.chars().peekable();
    loop {
        let character = characters.next();
        match character {
            Some('"') => {
                let word = word.get_or_insert_with(|| Word { text: String::new(), quoted: true });
                line.text.push('"');
                loop {
                    match characters.next() {
                        Some('"') if characters.peek() == Some(&'"') => {
                            characters.next();
                            word.text.push('"');
                            line.text.push_str("\"\"");
                        }
                        Some('"') => break line.text.push('"'),
                        None | Some('\n') => return Err(format!("{}: a quote is open", line.text)),
                        Some(inside) => {
                            word.text.push(inside);
                            line.text.push(inside);
                        }
                    }
                }
                continue;
            }
            Some(character) if !",;# \t\r\n".contains(character) => {
                let word = word.get_or_insert_with(|| Word { text: String::new(), quoted: false });
                word.text.push(character);
                line.text.push(character);
                continue;
            }
            _ => {}
        }
        if let Some(word) = word.take() {
            match line.fields.last_mut().filter(|_| list) {
                Some(field) => field.push(word),
                None => line.fields.push(vec![word]),
            }
            list = false;
        }
        match character {
            Some(',') if !line.fields.is_empty() => {
                list = true;
                line.text.push(',');
            }
            Some(',') => return Err("a line begins with a comma".to_owned()),
            Some(' ' | '\t' | '\r') => {
                if !line.text.is_empty() && !line.text.ends_with(' ') {
                    line.text.push(' ');
                }
            }
            _ => {
                if character == Some('#') {
                    while characters.next_if(|next| *next != '\n').is_some() {}
                }
                let done = std::mem::take(&mut line);
                list = false;
                if !done.fields.is_empty() {
                    lines.push(Line { text: done.text.trim().to_owned(), ..done });
                }
                if character.is_none() {
                    return Ok(lines);
                }
            }
        }
    }
}

fn rule(line: Line) -> Result<Rule, String> {
    let Line { fields, text } = line;
    let wrong = |reason: String| format!("rule \"{text}\": {reason}");
    let mut fields = fields.into_iter().peekable();
    let mut next = |what: &str| fields.next().ok_or_else(|| wrong(format!("{what} is missing")));
    let encryption = encryption(&single(next("the type of connection")?).map_err(wrong)?);
    let encryption = encryption.map_err(wrong)?;
    let (databases, users) = (next("the database")?, next("the user")?);
    names(&databases, &users).map_err(wrong)?;
    let address = single(next("the address")?).map_err(wrong)?;
    // A mask of its own follows an address without a length.
    let mask = match fields.peek().map(Vec::as_slice) {
        Some([mask]) => mask.text.parse::<IpAddr>().ok(),
        _ => None,
    };
    let mask = mask.inspect(|_| drop(fields.next()));
    let address = self::address(&address, mask).map_err(wrong)?;
    let method = fields.next().ok_or_else(|| wrong("the method is missing".to_owned()))?;
    let method = method_named(&single(method).map_err(wrong)?).map_err(wrong)?;
    let mut certificate = (method == Method::Certificate).then_some(Certificate::NamesUser);
    for option in fields {
        let option = single(option).map_err(wrong)?;
        certificate = Some(match (option.text.as_str(), method) {
            ("clientcert=verify-full", _) => Certificate::NamesUser,
            ("clientcert=verify-ca", Method::Certificate) => {
                return Err(wrong(
                    "with the method cert, clientcert can only be verify-full".into(),
                ));
            }
            ("clientcert=verify-ca", _) => Certificate::Valid,
            (other, _) => {
                return Err(wrong(format!(
                    "the option \"{other}\" is not supported; there are clientcert=verify-ca and \
                     clientcert=verify-full"
                )));
            }
        });
    }
    if certificate.is_some() && encryption != Encryption::Required {
        return Err(wrong("client certificates need a line that begins with hostssl".to_owned()));
    }
    Ok(Rule { encryption, databases, users, address, method, certificate, text })
}

fn single(field: Vec<Word>) -> Result<Word, String> {
    match <[Word; 1]>::try_from(field) {
        Ok([word]) => Ok(word),
        Err(_) => Err("only databases and users may be lists".to_owned()),
    }
}

fn encryption(word: &Word) -> Result<Encryption, String> {
    Ok(match word.text.as_str() {
        "host" => Encryption::Any,
        "hostssl" => Encryption::Required,
        "hostnossl" => Encryption::Without,
        "local" => return Err("there are no Unix sockets, so no lines \"local\"".to_owned()),
        other => {
            return Err(format!("\"{other}\" is none of host, hostssl and hostnossl"));
        }
    })
}

/// Refuses words that would mean something else in PostgreSQL.
fn names(databases: &[Word], users: &[Word]) -> Result<(), String> {
    if databases.iter().any(|word| word.keyword() == Some("replication")) {
        return Err("there are no replication connections; a database of that name is to be \
                    written in quotes"
            .to_owned());
    }
    let special = |word: &&Word| word.keyword().is_some_and(|text| text.starts_with(['/', '@']));
    match databases.iter().chain(users).find(special) {
        Some(word) => Err(format!("\"{}\": files and patterns are not supported", word.text)),
        None => Ok(()),
    }
}

fn address(word: &Word, mask: Option<IpAddr>) -> Result<Address, String> {
    let text = word.text.as_str();
    match (word.keyword(), mask) {
        (Some("all"), None) => return Ok(Address::All),
        (Some("samehost"), None) => return Ok(Address::SameHost),
        _ => {}
    }
    let network = match mask {
        Some(mask) => (text.parse().ok()).and_then(|ip| IpNet::with_netmask(ip, mask).ok()),
        None => text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from)),
    };
    network.map(Address::Network).ok_or_else(|| {
        format!(
            "\"{text}\" is no address: give all, samehost, an IP address, or a network such as \
             10.0.0.0/8"
        )
    })
}

fn method_named(word: &Word) -> Result<Method, String> {
    Ok(match word.text.as_str() {
        "trust" => Method::Trust,
        "reject" => Method::Reject,
        "scram-sha-256" => Method::Scram,
        "cert" => Method::Certificate,
        other => {
            return Err(format!(
                "the method \"{other}\" is not supported; there are scram-sha-256, cert, trust and \
                 reject"
            ));
        }
    })
}

#[cfg(test)]
mod tests;
