package report

import (
	"context"
	"encoding/json"
	"html"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// probe is put in front of the page's own script. When the page is loaded it says what it sees.
const probe = `<script>
const errors = [];
addEventListener("error", e => errors.push(e.message));
addEventListener("unhandledrejection", e => errors.push(String(e.reason)));
addEventListener("securitypolicyviolation", e => errors.push("refused: " + e.violatedDirective + " " + e.blockedURI));
addEventListener("load", () => {
  const boxes = [...document.querySelectorAll("figure.chart svg")].map(svg => {
    const box = svg.getBoundingClientRect(), figure = svg.closest("figure").getBoundingClientRect();
    return {width: box.width, height: box.height, inside: box.left >= figure.left && box.right <= figure.right};
  });
  const page = () => getComputedStyle(document.body).backgroundColor;
  const ink = () => getComputedStyle(document.querySelector("figure svg text")).fill;
  const before = [page(), ink()];
  document.getElementById("theme").click();
  const after = [page(), ink()];
  const rows = () => [...document.querySelectorAll("tbody tr")].filter(row => row.offsetParent !== null).length;
  const all = rows(), filter = document.getElementById("filter");
  filter.value = "nvme/mem/WRITE";
  filter.dispatchEvent(new Event("input"));
  document.body.style.width = "360px"; // a phone's
  const right = Math.max(...[...document.querySelectorAll("figure, .tile, .card, dl, p")].map(e => e.getBoundingClientRect().right));
  document.body.style.width = "";
  const seen = {errors, boxes, phone: right - 360, before, after, all, filtered: rows(), overflow: document.documentElement.scrollWidth - innerWidth,
    resources: performance.getEntriesByType("resource").map(r => r.name)};
  const out = document.createElement("pre");
  out.id = "probe";
  out.textContent = JSON.stringify(seen);
  document.body.append(out);
});
</script>`

func TestPageInABrowser(t *testing.T) {
	browser := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			browser = path
			break
		}
	}
	if browser == "" {
		t.Skip("there is no chromium: install it to have the page looked at")
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "report.html")
	page := strings.Replace(pageOf(t, example()), "</head>", probe+"</head>", 1)
	if err := os.WriteFile(file, []byte(page), 0o666); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
		"--user-data-dir="+filepath.Join(dir, "profile"), "--window-size=1240,900", "--dump-dom", "file://"+file)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	cmd.WaitDelay = time.Second
	dom, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", browser, err, &stderr)
	}
	m := regexp.MustCompile(`<pre id="probe">(.*?)</pre>`).FindSubmatch(dom)
	if m == nil {
		t.Fatalf("the page was not loaded:\n%.2000s\n%s", dom, &stderr)
	}
	var seen struct {
		Errors, Before, After, Resources []string
		Boxes                            []struct {
			Width, Height float64
			Inside        bool
		}
		All, Filtered int
		Overflow      float64
		Phone         float64
	}
	if err := json.Unmarshal([]byte(html.UnescapeString(string(m[1]))), &seen); err != nil {
		t.Fatal(err)
	}
	if len(seen.Errors) > 0 || len(seen.Resources) > 0 {
		t.Errorf("errors %q, loaded %q", seen.Errors, seen.Resources)
	}
	if want := 1 + exampleScaling + exampleLatencies; len(seen.Boxes) != want {
		t.Errorf("%d charts; want %d", len(seen.Boxes), want)
	}
	for i, box := range seen.Boxes {
		if box.Width < 250 || box.Height < 100 || !box.Inside {
			t.Errorf("chart %d is %+v", i, box)
		}
	}
	if seen.Before[0] == seen.After[0] || seen.Before[1] == seen.After[1] {
		t.Error("the theme does not change", seen.Before, seen.After)
	}
	if want := len(example().Cases); seen.All != want || seen.Filtered != 3 {
		t.Errorf("%d rows, %d of them after the filter; want %d and 3", seen.All, seen.Filtered, want)
	}
	if seen.Overflow > 0 || seen.Phone > 0 {
		t.Errorf("the page is %v pixels wider than the window, %v than a phone's", seen.Overflow, seen.Phone)
	}
}
