package nvme

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	"vfiouser/devices/nvme/spec"
	"vfiouser/fuzz/choice"
	"vfiouser/fuzz/nvmemodel"
)

// keptLife opens a subsystem with a state directory and gives its controller a host; nil if the
// subsystem, or the controller, does not want to go on with what is in the directory.
func keptLife(t testing.TB, dir string, pool *ramPool, memory *modelMemory) (*modelDrive, error) {
	s, err := NewSubsystem(SubsystemConfig{
		Serial: "model", StateDir: dir, Pool: pool, Logger: slog.New(slog.DiscardHandler),
		Namespaces: []Namespace{{Backend: newRAMDisk(16<<10, false)}, {Backend: newRAMDisk(32<<10, false), BlockSize: 4096}},
	})
	if err != nil {
		return nil, err
	}
	s.sanitize.pace, s.selfTest.pace = 1, 1
	c, err := New(Config{Subsystem: s, Doorbells: Trap, Queues: nvmemodel.Queues, MaxTransfer: nvmemodel.MaxTransfer})
	if err != nil {
		noError(t, s.Close())
		return nil, err
	}
	d := &modelDrive{t: t, modelRig: modelRig{mode: Trap}, worker: &manualWorker{}, s: s}
	d.join(c, memory)
	return d, nil
}

// richDirectory is what a state directory has of everything.
func richDirectory(t testing.TB, dir string, pool *ramPool, memory *modelMemory) map[string][]byte {
	d, err := keptLife(t, dir, pool, memory)
	noError(t, err)
	h := d.hosts[0]
	page := make([]byte, spec.IdentifySize)
	(&spec.IdentifyNamespace{Size: 16, Capacity: 16, NMIC: spec.NMICShared}).Put(page)
	h.fillWindow(choice.FromSeed(1, 0))
	d.Admin(0, spec.SubmissionEntry{Opcode: spec.AdminNamespaceManagement}, page)
	spec.PutControllerList(page, []uint16{1})
	d.Admin(0, spec.SubmissionEntry{Opcode: spec.AdminNamespaceAttachment, NSID: 3}, page)
	d.Admin(0, spec.SubmissionEntry{Opcode: spec.AdminSetFeatures, CDW10: spec.FeatHostIdentifier}, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	for _, e := range []spec.SubmissionEntry{
		{Opcode: spec.AdminSetFeatures, CDW10: spec.FeatArbitration | spec.SetFeaturesSave, CDW11: 0x01020303},
		{Opcode: spec.AdminSetFeatures, CDW10: spec.FeatErrorRecovery | spec.SetFeaturesSave, NSID: 3, CDW11: 9},
		{Opcode: spec.AdminSelfTest, CDW10: spec.SelfTestShort},
		{Opcode: spec.AdminSanitize, CDW10: spec.SanitizeActionBlockErase},
		{Opcode: 0x7f},
	} {
		d.Admin(0, e, nil)
	}
	h.until("the end of the sanitize operation", func() bool { return d.s.sanitize.get().Status != spec.SanitizeRuns })
	d.CreateQueue(0, 0)
	keys := make([]byte, spec.ReservationKeysSize)
	(&spec.ReservationKeys{Other: 7}).Put(keys)
	d.Start(0, 0, []*nvmemodel.Command{{
		Entry: spec.SubmissionEntry{Opcode: spec.NVMReservationRegister, NSID: 1, CDW10: spec.PersistOn << spec.RegisterPersistShift}, Data: keys,
	}})
	d.Wait(0)
	d.Admin(0, spec.SubmissionEntry{Opcode: spec.AdminSetFeatures, CDW10: spec.FeatWriteProtect, NSID: 2, CDW11: spec.WriteProtectOn}, nil)
	d.Restart(0, nvmemodel.Reset)
	d.close()
	files := map[string][]byte{}
	names, err := filepath.Glob(filepath.Join(dir, "*"+stateSuffix))
	noError(t, err)
	for _, name := range names {
		files[name], err = os.ReadFile(name)
		noError(t, err)
	}
	return files
}

// spoilFile changes a file in some places.
func spoilFile(t testing.TB, s *choice.Source, text []byte) []byte {
	if s.Odds(8) {
		text = slices.Clone(text)
		text[s.Intn(len(text))] = s.Uint8()
		return text[:len(text)-s.Intn(2)*s.Intn(len(text))]
	}
	var file any
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	noError(t, d.Decode(&file))
	for range 1 + s.Intn(3) {
		file = spoil(s, file)
	}
	text, err := json.Marshal(file)
	noError(t, err)
	return text
}

// FuzzStateDirectory opens a subsystem whose state directory is not what it left. Either it refuses
// that, or it works, and can be opened again.
//
//fuzz:covers devices/nvme/statedir.go devices/nvme/persist.go devices/nvme/layout.go devices/nvme/reservekeep.go devices/nvme/featurevalues.go
func FuzzStateDirectory(f *testing.F) {
	takeTurns(f)
	choice.Corpus(f, 200, 60)
	const inMemory = "/dev/shm" // files are synced, which takes its time on a disk
	dir, err := os.MkdirTemp(inMemory, "nvme-state-")
	if err != nil {
		dir = f.TempDir()
	}
	f.Cleanup(func() { _ = os.RemoveAll(dir) })
	memory, pool := newModelMemory(f), newRAMPool(nvmemodel.PoolSize, false)
	files := richDirectory(f, dir, pool, memory)
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	volume := pool.used[volumeName(3, 0)]
	f.Fuzz(func(t *testing.T, b []byte) {
		defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
		s := choice.FromBytes(b)
		left, err := filepath.Glob(filepath.Join(dir, "*"+stateSuffix))
		noError(t, err)
		for _, name := range left {
			noError(t, os.Remove(name))
		}
		for _, name := range names {
			noError(t, os.WriteFile(name, files[name], 0o600))
		}
		for range s.Intn(3) {
			name := names[s.Intn(len(names))]
			noError(t, os.WriteFile(name, spoilFile(t, s, files[name]), 0o600))
		}
		volume.closed.Store(true)
		pool.used = map[string]*ramDisk{volumeName(3, 0): volume}
		d, err := keptLife(t, dir, pool, memory)
		if err != nil {
			if len(b) == 0 || strings.Contains(err.Error(), "another subsystem's") {
				t.Fatal(err) // the one before has let go of it
			}
			volume.closed.Store(true) // what a subsystem that is not opens may stay open
			return
		}
		works(t, d)
		d.close()
		if d, err = keptLife(t, dir, pool, memory); err != nil {
			t.Fatalf("what was kept is refused: %v", err)
		}
		d.close()
	})
}
