// Package netmodel holds virtio-net cards, driven by programs of random operations, against a
// simple model of what is to arrive where. The program is a fuzz target and a test with seeds:
//
//	VFIOUSER_SEED=7 VFIOUSER_STEPS=2000 go test ./fuzz/netmodel -run TestModel
//
// runs one long program.
package netmodel
