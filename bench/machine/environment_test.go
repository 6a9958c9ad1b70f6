package machine

import (
	"os"
	"path/filepath"
	"testing"
)

func TestCPUModel(t *testing.T) {
	for cpuinfo, want := range map[string]string{
		"":                                    unknown,
		"processor\t: 0\nmodel name\t: A B\n": "A B",
		"processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd0c\n": "implementer 0x41, part 0xd0c",
	} {
		if got := cpuModel(cpuinfo); got != want {
			t.Errorf("%q is %q; want %q", cpuinfo, got, want)
		}
	}
}

func TestMemoryTotal(t *testing.T) {
	for meminfo, want := range map[string]int64{"": 0, "MemTotal: many kB\n": 0, "MemTotal:        1024 kB\nMemFree: 1 kB\n": 1 << 20} {
		if got := memoryTotal(meminfo); got != want {
			t.Errorf("%q: %d", meminfo, got)
		}
	}
}

func TestGovernor(t *testing.T) {
	cpus := t.TempDir()
	if got := governor(cpus); got != unknown {
		t.Error(got)
	}
	for cpu, name := range map[string]string{"cpu0": "powersave", "cpu1": "performance", "cpu2": "powersave"} {
		dir := filepath.Join(cpus, cpu, "cpufreq")
		if err := os.MkdirAll(dir, 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "scaling_governor"), []byte(name+"\n"), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if got := governor(cpus); got != "powersave, performance" {
		t.Error(got)
	}
}

func TestHypervisor(t *testing.T) {
	tests := []struct{ cpuinfo, product, want string }{
		{"", "", unknown},
		{"flags\t\t: fpu vme\n", "X1", "none"},
		{"flags\t\t: fpu hypervisor vme\n", "", "virtual machine"},
		{"flags\t\t: fpu hypervisor\n", "KVM", "virtual machine (KVM)"},
	}
	for _, test := range tests {
		if got := hypervisor(test.cpuinfo, test.product); got != test.want {
			t.Errorf("%+v: %q", test, got)
		}
	}
}

func TestChosen(t *testing.T) {
	for text, want := range map[string]string{"": unknown, "always [madvise] never\n": "madvise"} {
		if got := chosen(text); got != want {
			t.Errorf("%q: %q", text, got)
		}
	}
}

func TestTicks(t *testing.T) {
	then := parseTicks("cpu  10 0 0 90 0 0 0 0 5 5\ncpu0 1 1 1 1\n")
	now := parseTicks("cpu  20 0 0 150 0 0 0 30 50 5\n")
	if then != (Ticks{0, 100}) || now != (Ticks{30, 200}) {
		t.Error(then, now)
	}
	if got := now.StolenSince(then); got != 0.3 {
		t.Error(got)
	}
	if got := then.StolenSince(now); got != 0 {
		t.Error("time went back and", got, "was stolen")
	}
	for _, stat := range []string{"", "cpu", "intr 1 2 3\n", "cpu 1 x\n"} {
		if got := parseTicks(stat); got != (Ticks{}) {
			t.Errorf("%q: %+v", stat, got)
		}
	}
}

func TestEnvironmentIsComplete(t *testing.T) {
	e := Environment()
	for name, value := range map[string]string{"CPU": e.CPU, "kernel": e.Kernel, "arch": e.Arch, "Go": e.Go, "commit": e.Commit,
		"governor": e.Governor, "hypervisor": e.Hypervisor, "huge pages": e.HugePages} {
		if value == "" {
			t.Error(name, "is empty")
		}
	}
	if e.CPUs < 1 || e.GOMAXPROCS < 1 {
		t.Error(e.CPUs, e.GOMAXPROCS)
	}
	if Spin() <= 0 {
		t.Error("spinning takes no time")
	}
}
