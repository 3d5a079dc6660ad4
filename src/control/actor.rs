//! Who is at work, as far as the operating system knows.

/// The name of the operating system's user that this process runs as; `uid 1234` where `/etc/passwd` does
/// not know it. Not taken from the environment, which anybody can set.
pub fn os_user() -> String {
    let uid = rustix::process::getuid().as_raw();
    std::fs::read("/etc/passwd")
        .ok()
        .and_then(|text| name_of(&String::from_utf8_lossy(&text), uid))
        .unwrap_or_else(|| format!("uid {uid}"))
}

fn name_of(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid) && !name.is_empty()).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_number() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\n\ndeploy:x:1001:1001::/home/deploy:/bin/sh\n";
        assert_eq!(name_of(passwd, 1001).as_deref(), Some("deploy"));
        assert_eq!(name_of(passwd, 0).as_deref(), Some("root"));
        assert_eq!(name_of(passwd, 7), None);
    }
}
