//! What a seed means: which command, under which circumstances, with which fault, and where.

/// A small generator (splitmix64), so that a round can be repeated by its seed whatever the libraries do.
pub struct Numbers(u64);

impl Numbers {
    pub fn new(seed: u64) -> Numbers {
        Numbers(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }

    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.below(from.len() as u64)).unwrap()]
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Apply,
    Rollback,
    Restore,
    Prune,
    KeyRotate,
    Delete,
    Adopt,
    Create,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Superuser,
    Owner,
    /// Whose restores are done in place.
    WithoutCreatedb,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Good,
    LastFails,
    HealthRed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writes {
    Refuse,
    Fence,
    AcceptLoss,
}

impl Writes {
    pub fn word(self) -> &'static str {
        match self {
            Writes::Refuse => "refuse",
            Writes::Fence => "fence",
            Writes::AcceptLoss => "accept-loss",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    Kill,
    Term,
    Int,
    TermTwice,
    ServerStop,
    Cut,
    DiskFull,
    FileLimit,
}

/// When the fault comes.
#[derive(Clone, Debug)]
pub enum When {
    /// At the n-th time that the run is at this point.
    Point(String, u64),
    /// So long after it began.
    After(u64),
    /// When what was written reaches so many KiB.
    Kib(u64),
}

/// One round.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub verb: Verb,
    pub role: Role,
    pub ending: Ending,
    pub writes: Writes,
    pub atomic: bool,
    pub dml: bool,
    pub destroys: bool,
    /// `key rotate --reencrypt`.
    pub reencrypt: bool,
    /// The application asks for READ WRITE, and so passes the fence.
    pub passing: bool,
    pub fault: Fault,
    pub when: When,
    /// How long a server or a connection stays away, in milliseconds.
    pub away: u64,
    /// `recover` is disturbed as well: killed after so many milliseconds.
    pub second: Option<u64>,
    /// Two `recover` at once.
    pub two: bool,
    /// What is refused for others' writes is resolved by giving them up, or by keeping what is there.
    pub gives_up: bool,
    /// When all is settled, the migrations are applied after all.
    pub again: bool,
}

/// Which command comes to a point. Points of the ladder need a run that fails; see [`Plan::of`].
fn verbs_at(point: &str) -> &'static [Verb] {
    match point {
        "prune_delete" | "prune_done" => &[Verb::Prune],
        "delete_began" | "delete_done" => &[Verb::Delete],
        "adopt_began" | "adopt_done" => &[Verb::Adopt],
        "keys_handed_over"
        | "key_before_add"
        | "key_added"
        | "key_step_done"
        | "reencrypt_stream"
        | "reencrypt_before_manifest"
        | "reencrypt_manifest" => &[Verb::KeyRotate],
        "rollback_backed_up" => &[Verb::Rollback],
        "between_downs" | "down_began" | "down_before_commit" => &[Verb::Rollback, Verb::Apply],
        "scratch_ready" | "load_began" | "load_done" | "swap_began" | "swap_closed" | "swap_ready" | "swap_renamed"
        | "in_place_began" | "in_place_loaded" => &[Verb::Restore, Verb::Apply],
        "backup_snapshot" | "backup_stored" | "backup_read_back" | "backup_committed" => {
            &[Verb::Apply, Verb::Apply, Verb::Create, Verb::Rollback]
        }
        _ => &[Verb::Apply],
    }
}

impl Plan {
    /// The plan of a seed; `points` are the fault points of the source.
    pub fn of(seed: u64, points: &[String]) -> Plan {
        let mut numbers = Numbers::new(seed);
        let n = &mut numbers;
        let at_point = n.percent(55).then(|| points[usize::try_from(n.below(points.len() as u64)).unwrap()].clone());
        let verb = match &at_point {
            Some(point) => n.pick(verbs_at(point)),
            None => n.pick(&[
                Verb::Apply,
                Verb::Apply,
                Verb::Apply,
                Verb::Apply,
                Verb::Apply,
                Verb::Apply,
                Verb::Apply,
                Verb::Apply,
                Verb::Rollback,
                Verb::Restore,
                Verb::Prune,
                Verb::KeyRotate,
                Verb::Delete,
                Verb::Adopt,
            ]),
        };
        let mut plan = Plan {
            seed,
            verb,
            role: n.pick(&[Role::Owner, Role::Owner, Role::Superuser, Role::WithoutCreatedb]),
            ending: n.pick(&[Ending::Good, Ending::LastFails, Ending::HealthRed]),
            writes: n.pick(&[Writes::Refuse, Writes::Fence, Writes::AcceptLoss]),
            atomic: n.percent(20),
            dml: n.percent(40),
            destroys: n.percent(40),
            reencrypt: n.percent(50),
            passing: n.percent(20),
            fault: n.pick(&[
                Fault::Kill,
                Fault::Kill,
                Fault::Kill,
                Fault::Kill,
                Fault::Term,
                Fault::Int,
                Fault::TermTwice,
                Fault::ServerStop,
                Fault::ServerStop,
                Fault::Cut,
                Fault::Cut,
                Fault::DiskFull,
                Fault::FileLimit,
            ]),
            when: When::After(n.below(4500)),
            away: n.below(1500),
            second: n.percent(25).then(|| n.below(1500)),
            two: n.percent(15),
            gives_up: n.percent(50),
            again: n.percent(15),
        };
        if matches!(plan.verb, Verb::Prune | Verb::KeyRotate | Verb::Delete)
            && matches!(plan.fault, Fault::DiskFull | Fault::FileLimit)
        {
            // They free space, or write some hundred bytes.
            plan.fault = Fault::Kill;
        }
        if !matches!(plan.verb, Verb::Apply) {
            plan.atomic = false;
            plan.ending = Ending::Good;
        }
        if plan.verb == Verb::Rollback {
            // A DOWN that brings nothing back is no way to the base.
            plan.destroys = false;
        }
        if matches!(plan.fault, Fault::DiskFull | Fault::FileLimit) {
            plan.when = When::Kib(if plan.fault == Fault::DiskFull { 40 + n.below(360) } else { 8 + n.below(300) });
            return plan;
        }
        let Some(point) = at_point else {
            if !matches!(plan.verb, Verb::Apply | Verb::Rollback | Verb::Restore) {
                plan.when = When::After(n.below(900));
            }
            return plan;
        };
        plan.fit(&point, n);
        // At the third migration, say, and not always at the first.
        let nth = if matches!(point.as_str(), "between_migrations" | "up_before_commit" | "up_committed")
            && !plan.atomic
        {
            1 + n.below(8)
        } else if matches!(point.as_str(), "between_downs" | "down_began" | "down_before_commit" | "round_committed") {
            1 + n.below(3)
        } else if matches!(point.as_str(), "key_step_done" | "statement_began" | "statement_done" | "prune_delete") {
            1 + n.below(2)
        } else {
            1
        };
        plan.when = When::Point(point, nth);
        plan
    }

    /// Circumstances under which the run comes to the point.
    fn fit(&mut self, point: &str, n: &mut Numbers) {
        if point.starts_with("reencrypt") {
            self.reencrypt = true;
        }
        if point.starts_with("in_place") {
            self.role = Role::WithoutCreatedb;
        }
        let swaps = point.starts_with("swap_") || point.starts_with("load_") || point == "scratch_ready";
        if swaps && self.role == Role::WithoutCreatedb {
            self.role = Role::Owner;
        }
        if self.verb == Verb::Restore {
            return;
        }
        let ladder = swaps || point.starts_with("in_place");
        if ladder {
            // Where DOWN is not enough, and no write stands in the way of a restore.
            self.destroys = true;
            self.ending = n.pick(&[Ending::LastFails, Ending::HealthRed]);
            self.writes = n.pick(&[Writes::Fence, Writes::AcceptLoss]);
            self.passing = false;
            self.atomic = self.atomic && self.ending == Ending::HealthRed;
        } else if point.starts_with("down_") || point == "between_downs" {
            self.destroys = false;
            if self.verb == Verb::Apply {
                self.ending = n.pick(&[Ending::LastFails, Ending::HealthRed]);
                self.atomic = self.atomic && self.ending == Ending::HealthRed;
            }
        } else if point.starts_with("round_") || point.starts_with("statement_") {
            self.atomic = false;
            self.dml |= point.starts_with("round_") || point.ends_with("commit") || point.ends_with("committed");
        } else if matches!(point, "apply_migrated" | "health") && self.ending == Ending::LastFails {
            self.ending = Ending::HealthRed;
        } else if point == "between_migrations" {
            self.atomic = false;
        }
    }
}
