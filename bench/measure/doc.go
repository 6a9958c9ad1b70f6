// Package measure runs cases and their limits in turns and keeps what it sees. A round goes
// through all cases in an order of its own; each is set up anew, warmed up, and timed next to
// its limit, so that what changes slowly, in the machine or around it, meets both alike.
package measure
