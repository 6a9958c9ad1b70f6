// Package bench is the list of what the engine is measured by, from the bottom up: the
// codec, address translation, interrupts, messages, devices, and many of them at once.
// Each Case is an operation, and stands beside a Limit: what this machine can do at best
// with the same work, a bare memcpy, write(2) or socket.
//
// Here are the cases alone. measure runs them and their limits in turns, result is what
// comes of it, report shows it, compare holds two of them against each other; vfu bench is
// all of that on the command line.
// The benchmarks of this package's tests run the same cases under go test -bench. Benchmarks
// of single packages live in those packages.
package bench
