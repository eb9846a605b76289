use super::*;

fn rules(text: &str) -> Rules {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// The method for a user, with `boss` a member of `staff`.
fn method(rules: &Rules, user: &str, database: &str, address: &str, encrypted: bool) -> String {
    let visitor = Visitor {
        address: address.parse().expect("an address"),
        server: "192.0.2.1".parse().expect("an address"),
        encrypted,
        user,
        database,
    };
    let is_member = |group: &str| group == user || (user, group) == ("boss", "staff");
    let found = rules.find(&visitor, is_member);
    found.map_or_else(|| "none".to_owned(), |rule| format!("{:?}", rule.method))
}

#[test]
fn roles_are_let_in_with_what_they_have() {
    for (text, user, has_password, expected) in [
        ("host all all samehost trust", "a", false, true),
        ("host all all all scram-sha-256", "a", false, false),
        ("host all all all scram-sha-256", "a", true, true),
        ("hostssl all all all cert", "a", false, true),
        ("host all a all reject; host all all samehost trust", "a", false, false),
        ("host all a 10.0.0.0/8 reject; host all all samehost trust", "a", false, true),
        ("host all all all scram-sha-256; host all all samehost trust", "a", false, false),
        ("host all b samehost trust", "a", true, false),
        ("host all +g samehost trust", "a", false, true),
        ("host all +h samehost trust", "a", false, false),
        ("", "a", true, false),
    ] {
        let let_in = rules(text).may_let_in(user, has_password, |group| group == "g");
        assert_eq!(let_in, expected, "{text}");
    }
}

#[test]
fn the_first_rule_that_fits_decides() {
    let rules = rules(
        "# who             may come in\n\
         host all  evil    all              reject   # never\n\
         host \"all\" all  10.0.0.0/8       reject; hostssl a,b , \"c d\" all 10.1.0.0/16 cert\n\
         hostnossl sameuser all 10.2.0.0 255.255.0.0 scram-sha-256\r\n\
         host samerole all 10.3.0.7         trust\n\n;;\
         host all +staff,\"+odd\" 2001:db8::/32 scram-sha-256\n\
         host all all      samehost         trust\n",
    );
    for (user, database, address, encrypted, expected) in [
        ("evil", "a", "192.0.2.1", true, "Reject"),
        ("x", "all", "10.9.9.9", false, "Reject"),
        ("x", "a", "10.1.2.3", true, "Certificate"),
        ("x", "a", "10.1.2.3", false, "none"),
        ("x", "c d", "::ffff:10.1.2.3", true, "Certificate"),
        ("x", "x", "10.2.255.1", false, "Scram"),
        ("x", "x", "10.2.255.1", true, "none"),
        ("x", "y", "10.2.255.1", false, "none"),
        ("boss", "staff", "10.3.0.7", false, "Trust"),
        ("boss", "other", "10.3.0.7", false, "none"),
        ("boss", "staff", "10.3.0.8", false, "none"),
        ("boss", "x", "2001:db8::1", false, "Scram"),
        ("+odd", "x", "2001:db8::1", false, "Scram"),
        ("odd", "x", "2001:db8::1", false, "none"),
        ("x", "x", "192.0.2.1", false, "Trust"),
        ("x", "x", "127.0.0.5", false, "Trust"),
        ("x", "x", "192.0.2.2", false, "none"),
    ] {
        let found = method(&rules, user, database, address, encrypted);
        assert_eq!(found, expected, "{user} {database} {address} {encrypted}");
    }
    assert_eq!(rules.to_string().parse::<Rules>().as_ref(), Ok(&rules), "{rules}");
}

#[test]
fn what_is_not_understood_is_refused() {
    for (text, part) in [
        ("local all all trust", "Unix sockets"),
        ("hots all all all trust", "\"hots\""),
        ("host all all all md5", "\"md5\""),
        ("host all all all ldap ldapserver=x", "\"ldap\""),
        ("host all all all", "method is missing"),
        ("host all all", "address is missing"),
        ("host all", "user is missing"),
        ("host all all example.org trust", "\"example.org\""),
        ("host all all samenet trust", "\"samenet\""),
        ("host all all 10.0.0.0/33 trust", "\"10.0.0.0/33\""),
        ("host all all 10.0.0.0 255.0.255.0 trust", "\"10.0.0.0\""),
        ("host all all all,10.0.0.0/8 trust", "lists"),
        ("host replication all all trust", "replication"),
        ("host @file all all trust", "@file"),
        ("host all /^a all trust", "/^a"),
        ("hostssl all all all cert map=x", "map=x"),
        ("host all all all cert", "hostssl"),
        ("hostssl all all all cert clientcert=verify-ca", "verify-full"),
        ("host all \"all all trust", "quote"),
        ("host all all all trust extra", "\"extra\""),
        (", host all", "comma"),
    ] {
        let error = text.parse::<Rules>().expect_err(text);
        assert!(error.contains(part), "{text}: {error}");
    }
    assert_eq!(rules(" \n# nothing\n;"), Rules(Vec::new()));
}

#[test]
fn open_doors_and_closed_houses_are_refused() {
    let default = "host all all 127.0.0.0/8 trust; host all all ::1/128 trust";
    let scram = "host all all all scram-sha-256";
    for (text, listens_on, tls, part) in [
        (default, "127.0.0.1", false, None),
        (default, "::1", false, None),
        (default, "0.0.0.0", false, Some("listens on 0.0.0.0")),
        (default, "::", false, Some("listens on ::")),
        (scram, "0.0.0.0", false, None),
        ("host all all 127.0.0.1 trust; host all all 10.0.0.0/8 reject", "::", false, Some("::")),
        ("host all all all trust", "127.0.0.1", false, Some("scram-sha-256")),
        ("host all all 0.0.0.0/0 trust", "127.0.0.1", false, Some("scram-sha-256")),
        ("host all all 126.0.0.0/7 trust", "127.0.0.1", false, Some("scram-sha-256")),
        ("host all all samehost trust", "127.0.0.1", false, None),
        ("host all all samehost trust", "0.0.0.0", false, Some("listens on")),
        ("hostssl all all all scram-sha-256", "0.0.0.0", false, Some("tls.certificate")),
        ("hostssl all all all scram-sha-256", "0.0.0.0", true, None),
        ("hostssl all all all cert", "0.0.0.0", true, Some("tls.client_ca")),
    ] {
        let around = Surroundings {
            listens_on: listens_on.parse().expect("an address"),
            tls,
            client_certificates: false,
        };
        match (rules(text).check(around), part) {
            (Ok(()), None) => {}
            (Err(error), Some(part)) => assert!(error.contains(part), "{text}: {error}"),
            (other, _) => panic!("{text} on {listens_on}: {other:?}"),
        }
    }
    let around = Surroundings {
        listens_on: "::".parse().expect("an address"),
        tls: true,
        client_certificates: true,
    };
    let trusted = "hostssl all all all trust clientcert=verify-full";
    assert_eq!(rules(trusted).check(around), Ok(()), "the certificate is the proof");
}
