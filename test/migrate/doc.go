// Package migrate moves an NVMe controller from one server to another while a host uses
// it. The host is a small driver that changes the device under its queues, which a VMM
// does by changing the device under a guest.
package migrate
