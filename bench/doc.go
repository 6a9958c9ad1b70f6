// Package bench holds the benchmarks that need more than one package: message round
// trips through a real socket, and I/O on a device with the device on one core and
// its driver on another. Each stands beside its limit, measured in the same run.
// Benchmarks of single packages live in those packages.
package bench
