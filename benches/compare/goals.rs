//! What we want to reach, at full scale, on two cores, with two threads.

use crate::args::{Args, DataSet};
use crate::contenders::Contender::{
    self, DumpZstd, Floor, Mydumper, Myloader, Plain, Restore, Zstd,
};

/// Something to be at most.
pub(crate) struct Goal {
    pub(crate) of: Contender,
    pub(crate) what: What,
    pub(crate) at_most: f64,
}

pub(crate) enum What {
    /// Time, as a multiple of another's.
    TimesOf(Contender),
    /// Memory, in MiB.
    Peak,
}

/// The goals for what is measured.
pub(crate) fn goals(args: &Args) -> Vec<Goal> {
    let time = |of, than, at_most| Goal {
        of,
        what: What::TimesOf(than),
        at_most,
    };
    if args.restore {
        return vec![time(Restore, Myloader, 0.75)];
    }
    match args.data {
        DataSet::Default => {
            let mut goals = vec![
                time(Plain, Floor, 1.4),
                time(Plain, Mydumper, 0.8),
                time(Zstd, Floor, 1.75),
                time(Zstd, DumpZstd, 0.4),
            ];
            let at_most = match args.threads {
                1 | 2 => 96.0,
                3..=16 => 160.0,
                _ => return goals,
            };
            goals.extend([Plain, Zstd].map(|of| Goal {
                of,
                what: What::Peak,
                at_most,
            }));
            goals
        }
        DataSet::Doubles => vec![time(Plain, Floor, 0.45)],
        DataSet::Tiny => vec![time(Plain, Mydumper, 0.5), time(Zstd, Mydumper, 0.5)],
    }
}
