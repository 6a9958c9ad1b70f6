package fuzz

import (
	"testing"

	nvmedevice "vfiouser/devices/nvme"
	"vfiouser/fuzz/choice"
	"vfiouser/fuzz/nvmemodel"
	"vfiouser/test/holdings"
)

// TestNVMeSequences runs random programs against a drive behind a socket and a model of it. The
// same programs, in one process, are the fuzz target FuzzCommandSequences of devices/nvme.
func TestNVMeSequences(t *testing.T) {
	holdings.CheckLeaks(t)
	choice.Programs(t, 8, 150, func(t *testing.T, s *choice.Source) {
		mode := choice.Pick(s, nvmedevice.Trap, nvmedevice.Shadow, nvmedevice.Mmap)
		files := s.Odds(3)
		nvmemodel.Run(t, s, func(cfg nvmemodel.Config) nvmemodel.Drive {
			d := newNVMeDrive(t, mode, files, cfg)
			t.Cleanup(d.close)
			return d
		})
	})
}
