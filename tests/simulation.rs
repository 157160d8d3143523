//! Some thousand simulations, and that a seed decides all of a simulation.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::process::Command;

fn simulate(arguments: &[&str]) -> (bool, String) {
    let run = Command::new(env!("CARGO_BIN_EXE_migrans-sim")).args(arguments).output().unwrap();
    (run.status.success(), String::from_utf8(run.stdout).unwrap())
}

#[test]
fn nothing_goes_wrong_in_some_thousand_simulations() {
    // MIGRANS_SEEDS and MIGRANS_FIRST_SEED ask for more of them, and for others.
    let seeds = std::env::var("MIGRANS_SEEDS").unwrap_or("4000".into());
    let first = std::env::var("MIGRANS_FIRST_SEED").unwrap_or("0".into());
    let within = if seeds == "4000" { "120" } else { "86400" };
    let (passed, said) = simulate(&["--first", &first, "--seeds", &seeds, "--within", within]);
    println!("{said}");
    assert!(passed, "{said}");
}

#[test]
fn a_seed_decides_everything() {
    for seed in ["3", "11", "28"] {
        assert_eq!(simulate(&["--seed", seed]), simulate(&["--seed", seed]), "seed {seed}");
    }
}
