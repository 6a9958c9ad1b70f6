package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"vfiouser/link"
)

// The kinds of links, and their options, are those that the error for an unknown one lists.
func TestLinksAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/links.md")
	if err != nil {
		t.Fatal(err)
	}
	_, err = new(link.Set).Open("?")
	if err == nil {
		t.Fatal("no error")
	}
	_, known, _ := strings.Cut(err.Error(), "known are ")
	option := regexp.MustCompile(`[a-z]+=`)
	for usage := range strings.SplitSeq(known, ", ") {
		kind, _, _ := strings.Cut(usage, ":")
		for _, want := range append(option.FindAllString(usage, -1), "| `"+kind) {
			if !strings.Contains(string(page), want) {
				t.Errorf("docs/links.md has no %s of %s", want, usage)
			}
		}
	}
}
