package report

import (
	"fmt"
	"html"
	"html/template"
	"image/color"
	"regexp"
	"strings"
)

var (
	// svgHead is what a file begins with and a page has no use for: declaration, comment, and
	// the size of a picture that is to be as wide as its place.
	svgHead = regexp.MustCompile(`(?s)^.*?<svg width="[^"]*" height="[^"]*"`)
	svgName = regexp.MustCompile(`\s*xmlns(:xlink)?="[^"]*"`)
	svgText = regexp.MustCompile(`>([^<]+)</text>`)
	svgFont = regexp.MustCompile(`font-family:[^;"]*;font-variant:normal;font-weight:normal;font-style:normal;`)
)

// theme makes a drawing follow the page: its font, and its colours, light or dark.
func theme(svg string) template.HTML {
	svg = svgHead.ReplaceAllLiteralString(svg, `<svg role="img"`)
	svg = svgName.ReplaceAllLiteralString(svg, "")
	svg = svgFont.ReplaceAllLiteralString(svg, "")
	// The page's font is another one than that by which texts were placed: each keeps its width.
	sized := styled().X.Tick.Label
	svg = svgText.ReplaceAllStringFunc(svg, func(end string) string {
		text := html.UnescapeString(svgText.FindStringSubmatch(end)[1])
		return fmt.Sprintf(` textLength="%.1f" lengthAdjust="spacingAndGlyphs"`, sized.Width(text).Points()) + end
	})
	pairs := []string{hex(ink), "var(--ink)", hex(muted), "var(--muted)", hex(faint), "var(--faint)", hex(grid1), "var(--grid)"}
	for i, c := range hues {
		pairs = append(pairs, hex(c), fmt.Sprintf("var(--hue%d)", i))
	}
	return template.HTML(strings.NewReplacer(pairs...).Replace(svg))
}

// hex is a colour as the drawing has it.
func hex(c color.Color) string {
	n := color.NRGBAModel.Convert(c).(color.NRGBA)
	return fmt.Sprintf("#%02X%02X%02X", n.R, n.G, n.B)
}
