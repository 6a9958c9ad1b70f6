package machine

import (
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"vfiouser/bench/result"
)

// unknown stands for what the machine does not tell.
const unknown = "unknown"

// Environment says what results are measured on, and with which build.
func Environment() result.Environment {
	e := result.Environment{
		CPU:        cpuModel(read("/proc/cpuinfo")),
		CPUs:       runtime.NumCPU(),
		Memory:     memoryTotal(read("/proc/meminfo")),
		Kernel:     kernel(),
		Arch:       runtime.GOARCH,
		Go:         runtime.Version(),
		GOMAXPROCS: runtime.GOMAXPROCS(0),
		Commit:     unknown,
		Governor:   governor("/sys/devices/system/cpu"),
		HugePages:  chosen(read("/sys/kernel/mm/transparent_hugepage/enabled")),
		Hypervisor: hypervisor(read("/proc/cpuinfo"), strings.TrimSpace(read("/sys/class/dmi/id/product_name"))),
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				e.Commit = s.Value
			case "vcs.modified":
				e.Modified = s.Value == "true"
			}
		}
	}
	return e
}

func read(path string) string {
	content, _ := os.ReadFile(path) // what is not there is unknown
	return string(content)
}

// field gives what stands behind "name :" in a file of /proc.
func field(text, name string) string {
	for line := range strings.Lines(text) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func orUnknown(s string) string {
	if s == "" {
		return unknown
	}
	return s
}

// cpuModel is "model name" on amd64; arm64 has numbers alone.
func cpuModel(cpuinfo string) string {
	if model := field(cpuinfo, "model name"); model != "" {
		return model
	}
	if part := field(cpuinfo, "CPU part"); part != "" {
		return "implementer " + field(cpuinfo, "CPU implementer") + ", part " + part
	}
	return unknown
}

// memoryTotal is in bytes. 0: unknown.
func memoryTotal(meminfo string) int64 {
	kib, err := strconv.ParseInt(strings.TrimSuffix(field(meminfo, "MemTotal"), " kB"), 10, 64)
	if err != nil {
		return 0
	}
	return kib << 10
}

func kernel() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return unknown
	}
	return unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:])
}

// governor names the frequency governors of all CPUs.
func governor(cpus string) string {
	files, _ := filepath.Glob(filepath.Join(cpus, "cpu[0-9]*/cpufreq/scaling_governor")) // the pattern is good
	var names []string
	seen := map[string]bool{}
	for _, file := range files {
		if name := strings.TrimSpace(read(file)); name != "" && !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
	}
	return orUnknown(strings.Join(names, ", "))
}

var bracketed = regexp.MustCompile(`\[(\w+)\]`)

// chosen is the word in brackets: "always [madvise] never".
func chosen(text string) string {
	if m := bracketed.FindStringSubmatch(text); m != nil {
		return m[1]
	}
	return unknown
}

// hypervisor says whether this is a virtual machine, and of what kind.
func hypervisor(cpuinfo, product string) string {
	for flag := range strings.FieldsSeq(field(cpuinfo, "flags")) {
		if flag == "hypervisor" {
			if product != "" {
				return "virtual machine (" + product + ")"
			}
			return "virtual machine"
		}
	}
	if field(cpuinfo, "flags") == "" {
		return unknown
	}
	return "none"
}
