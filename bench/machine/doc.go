// Package machine asks the machine what it is and what it is at: processor, kernel, load, time
// stolen by the hypervisor, allocations and system calls of this process. What a machine does
// not tell is said to be unknown, never guessed.
package machine
