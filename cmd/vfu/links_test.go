package main

import (
	"os"
	"strings"
	"testing"

	"vfiouser/link"
)

// The kinds of links are those that the error for an unknown one lists.
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
	for usage := range strings.SplitSeq(known, ", ") {
		if !strings.Contains(string(page), "| `"+usage+"` |") {
			t.Errorf("docs/links.md has no %s", usage)
		}
	}
}
