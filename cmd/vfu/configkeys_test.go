package main

// keyValues is what a key can have: values that are right, as the command line has them, and
// some that are not, as TOML has them.
type keyValues struct {
	key          string
	form         form
	right, wrong []string
}

var (
	processKeys = []keyValues{
		{"log-level", text, []string{"debug", "info", "warn", "error", "INFO"}, []string{`"loud"`, `""`, "5"}},
		{"log-format", text, []string{"text", "json"}, []string{`"xml"`, "true"}},
		{"write-multiple", boolean, []string{"true", "false"}, []string{`"true"`, "1"}},
		{"workers", integer, []string{"1", "2", "256"}, []string{"0", "257", "-1", `"2"`, "2.0"}},
		{"control", text, []string{"/run/control", "/run/a"}, []string{`""`, "[]"}},
	}
	socketKey    = keyValues{"socket", text, nil, []string{`""`, "7", `["/run/a"]`}}
	fdKey        = keyValues{"fd", integer, nil, []string{"-1", "2147483648", `"3"`, "3.5"}}
	backendKey   = keyValues{"backend", text, []string{"mem:1M", "null:1G", "delay:1ms,null:1G", "file:/x,direct"}, []string{`"tape:1"`, `""`, "5", "{}"}}
	durationsBad = []string{`"5"`, `"0s"`, `"-1ms"`, `"soon"`, "5", "07:32:00"}
	nvmeKeys     = []keyValues{
		{"queues", integer, []string{"1", "8", "128"}, []string{"0", "129", "-1", `"8"`, "8.5", "99999999999"}},
		{"doorbells", text, []string{"auto", "trap", "shadow", "mmap"}, []string{`"loud"`, `""`, "1"}},
		{"idle-poll", text, []string{"1ns", "500us", "10ms", "1h0m1s"}, durationsBad},
		{"incoming", boolean, []string{"true", "false"}, []string{`"yes"`, "0"}},
		{"serial", text, []string{"VFU0001", "x", "01234567890123456789"}, []string{`"012345678901234567890"`, `"\u00e9"`, "1"}},
		{"subsystem", text, []string{"s", "t"}, []string{`""`, "1"}},
		{"pool", text, []string{"mem:1G", "dir:/srv/x:64G"}, []string{`"mem"`, `"tape:1G"`, `""`, "1"}},
		{"state-dir", text, []string{"/var/lib/a", "b"}, []string{`""`, "false"}},
	}
	formatKeys = []keyValues{
		{"block-size", integer, []string{"512", "4096"}, []string{"513", "0", `"512"`}},
		{"metadata", integer, []string{"0", "8", "16", "64"}, []string{"7", "-8", "8.0"}},
		{"extended", boolean, []string{"true", "false"}, []string{"1", `"true"`}},
		{"protection", integer, []string{"0", "1", "2", "3"}, []string{"4", "true"}},
		{"guard", integer, []string{"16", "64"}, []string{"0", "32", `"16"`}},
		{"storage-tag", integer, []string{"0", "16"}, []string{"1", "-16"}},
	}
	linkKey  = keyValues{"link", text, []string{"loop", "null", "switch:lan", "tap:t0", "pcap:/f,loop", "loss:1%,null"}, []string{`"cable"`, `""`, "1"}}
	cardKeys = []keyValues{
		{"mac", text, []string{"52:54:00:12:34:56", "02-00-00-00-00-01"}, []string{`"52:54"`, `"01:00:5e:00:00:01"`, `"00:00:00:00:00:00"`, `"52:54:00:12:34:56:78:9a"`, "525400123456"}},
		{"queues", integer, []string{"1", "4", "64"}, []string{"0", "65", `"4"`, "-4"}},
		{"queue-size", integer, []string{"64", "1024", "32768"}, []string{"0", "63", "100", "65536"}},
		{"mtu", integer, []string{"68", "1500", "65535"}, []string{"0", "67", "65536"}},
		{"speed", integer, []string{"1", "25000", "2147483647"}, []string{"0", "2147483648", `"fast"`}},
		{"doorbells", text, []string{"auto", "trap", "mmap"}, []string{`"shadow"`, `""`, "[]"}},
		{"idle-poll", text, []string{"1ns", "200us"}, durationsBad},
		{"features", texts, []string{"", "mac", "mac,mrg_rxbuf,packed", "VERSION_1,ctrl_vq"}, []string{`"mac"`, `["standby"]`, `["mac", 5]`, `[["mac"]]`}},
		{"without-features", texts, []string{"", "packed,in_order", "mrg_rxbuf", "ctrl_vq"}, []string{`["version_1"]`, `["mac", "x"]`, "5"}},
	}
)
