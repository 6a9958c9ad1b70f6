package nvme

import (
	"runtime/debug"
	"testing"

	"vfiouser/fuzz/choice"
	"vfiouser/fuzz/nvmemodel"
	"vfiouser/test/holdings"
)

// maxProgram bounds the bytes of a program, of which an operation takes a few at least.
const maxProgram = 2000

// FuzzCommandSequences runs programs against a subsystem and a model of it.
func FuzzCommandSequences(f *testing.F) {
	takeTurns(f)
	for seed := range uint64(40) {
		f.Add(choice.FromSeed(seed, 0).Bytes(100 + 20*int(seed)))
	}
	memory := []*modelMemory{newModelMemory(f), newModelMemory(f)}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < maxProgram {
			runProgram(t, choice.FromBytes(b), memory)
		}
	})
}

// TestCommandSequences runs programs of fixed seeds.
func TestCommandSequences(t *testing.T) {
	holdings.CheckLeaks(t)
	memory := []*modelMemory{newModelMemory(t), newModelMemory(t)}
	choice.Programs(t, 60, 300, func(t *testing.T, s *choice.Source) { runProgram(t, s, memory) })
}

func runProgram(t *testing.T, s *choice.Source, memory []*modelMemory) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	rig := anyRig(s)
	nvmemodel.Run(t, s, func(cfg nvmemodel.Config) nvmemodel.Drive {
		d := newModelDrive(t, rig, memory, cfg)
		t.Cleanup(d.close)
		return d
	})
}
