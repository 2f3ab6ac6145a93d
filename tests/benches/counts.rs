//! Instructions that a real redis-server spends on each path of the scripts, counted by callgrind: the same in every
//! run, however busy the machine is.

#[path = "../counts/measure.rs"]
mod measure;

fn main() {
    println!("{:<42} {:>12} {:>12}", "instructions of the server for", "a call", "x raw pair");
    for count in measure::counts() {
        println!("{:<42} {:>12.0} {:>12.3}", count.path, count.instructions, count.ratio);
    }
}
