// Package netmodel holds virtio-net cards, driven by programs of random operations, against a
// simple model of what is to arrive where. The program is a fuzz target and a test with seeds:
//
//	go test ./fuzz/netmodel -run TestModel -seed 7 -steps 2000
//
// runs one long program. VFIOUSER_SEED and VFIOUSER_STEPS in the environment do the same.
package netmodel
