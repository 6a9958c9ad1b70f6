package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"vfiouser/devices/nvme"
)

// value is that of a key in a list of right settings.
func value(list []setting, key string) (arg string, ok bool) {
	for _, s := range list {
		if s.key == key {
			return s.arg, true
		}
	}
	return "", false
}

// contradictions are what is wrong with devices that are described rightly: any may be told.
func (c *configText) contradictions() (list []mistake) {
	control, _ := value(c.process, "control")
	places := map[string]bool{}
	members := map[string]int{}
	said := map[string]string{}
	for i, d := range c.devices {
		wrong := func(says string) { list = append(list, mistake{d.line, says}) }
		socket, ok := value(d.settings, "socket")
		place := filepath.Clean(socket)
		if !ok {
			if place, ok = value(d.settings, "fd"); !ok {
				wrong("no socket (or fd)")
				continue
			}
			place = "descriptor " + place
		}
		switch {
		case places[place]:
			wrong("is the place of the device of ")
		case place == control:
			wrong("the control socket is to be there too")
		}
		places[place] = true
		if d.kind == "virtio-net" {
			if _, ok := value(d.settings, "link"); !ok {
				wrong("no link")
			}
			continue
		}
		name, ok := value(d.settings, "subsystem")
		if !ok {
			name = fmt.Sprint(i)
		}
		if members[name] == 0 && !c.hasStorage(name, d) {
			wrong("no [[nvme.namespace]] (or pool)")
		}
		if members[name]++; members[name] > 8 {
			wrong("has 8 controllers already")
		}
		for i, n := range d.namespaces {
			if !validFormat(n) {
				wrong(fmt.Sprintf("namespace %d of the controller", i+1))
			}
		}
		for _, key := range []string{"serial", "pool", "state-dir"} {
			v, ok := value(d.settings, key)
			before := said[name+"/"+key]
			if ok && before != "" && before != v {
				wrong("say it once")
			}
			if ok && before == "" {
				said[name+"/"+key] = v
			}
		}
	}
	return list
}

// hasStorage says whether a subsystem that begins with a device has a namespace or a pool.
func (c *configText) hasStorage(name string, first *describedDevice) bool {
	return slices.ContainsFunc(c.devices, func(d *describedDevice) bool {
		other, _ := value(d.settings, "subsystem")
		_, pool := value(d.settings, "pool")
		return (d == first || other == name) && d.kind == "nvme" && (pool || len(d.namespaces) > 0)
	})
}

// validFormat says whether there is the format of a namespace.
func validFormat(list []setting) bool {
	number := func(key string) int {
		arg, _ := value(list, key)
		n, _ := strconv.Atoi(arg)
		return n
	}
	extended, _ := value(list, "extended")
	n := nvme.Namespace{BlockSize: number("block-size"), Metadata: number("metadata"), Extended: extended == "true",
		Protection: number("protection"), Guard: number("guard"), StorageTag: number("storage-tag")}
	return n.CheckFormat() == nil
}

// argument is the same on the command line.
func (s setting) argument() string {
	return "--" + strings.Replace(s.key, "backend", "namespace", 1) + "=" + s.arg
}

// arguments are a device's: what begins it, or a namespace, comes first.
func (d *describedDevice) arguments() (args []string) {
	add := func(list []setting, first ...string) {
		for _, begins := range []bool{true, false} {
			for _, s := range list {
				if slices.Contains(first, s.key) == begins {
					args = append(args, s.argument())
				}
			}
		}
	}
	add(d.settings, "socket", "fd")
	for _, n := range d.namespaces {
		add(n, "backend")
	}
	return args
}
