package libvirt

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"math/rand/v2"
	"strings"
	"testing"
)

func ppm(w, h int) []byte {
	data := []byte(fmt.Sprintf("P6\n%d %d\n255\n", w, h))
	for i := range 3 * w * h {
		data = append(data, byte(i))
	}
	return data
}

// grey is a PNG that is small, whatever its picture's size.
func grey(t *testing.T, w, h int) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := png.Encode(&out, image.NewGray(image.Rect(0, 0, w, h))); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestParsePPM(t *testing.T) {
	screen, err := parsePPM(ppm(3, 2))
	if err != nil {
		t.Fatal(err)
	}
	if got := screen.At(1, 1); screen.Bounds() != image.Rect(0, 0, 3, 2) || got != (color.RGBA{12, 13, 14, 255}) {
		t.Errorf("%v with %v at 1,1", screen.Bounds(), got)
	}
	good := string(ppm(3, 2))
	for name, bad := range map[string]string{
		"empty": "", "text form": strings.Replace(good, "P6", "P3", 1), "comment": strings.Replace(good, "P6\n", "P6\n# x\n", 1),
		"short": good[:len(good)-1], "long": good + "x", "no width": "P6\n 2\n255\n", "zero": "P6\n0 0\n255\n", "negative": "P6\n-3 2\n255\n",
		"leading zero": strings.Replace(good, "3 2", "03 2", 1), "hex": strings.Replace(good, "3 2", "0x3 2", 1), "levels": strings.Replace(good, "255", "65535", 1),
		"too wide": "P6\n8193 1\n255\n", "overflow": "P6\n99999999999999999999 1\n255\n", "two spaces": strings.Replace(good, "3 2", "3  2", 1),
	} {
		if _, err := parsePPM([]byte(bad)); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

func TestToPNGFits(t *testing.T) {
	noise := ppm(1920, 1080)
	rand.NewChaCha8([32]byte{}).Read(noise[len(noise)-3*1920*1080:])
	var asPNG bytes.Buffer
	screen, err := parsePPM(noise)
	if err == nil {
		err = png.Encode(&asPNG, screen)
	}
	if err != nil || asPNG.Len() < maxPNG {
		t.Fatalf("%d bytes, %v: too small to test with", asPNG.Len(), err)
	}
	for name, dump := range map[string][]byte{"PPM": noise, "PNG": asPNG.Bytes()} {
		shot, err := toPNG(dump)
		if err != nil || len(shot) > maxPNG {
			t.Fatalf("%s: %d bytes, %v", name, len(shot), err)
		}
		config, err := png.DecodeConfig(bytes.NewReader(shot))
		if err != nil || config.Width != 960 || config.Height != 540 {
			t.Errorf("%s became %d × %d, %v", name, config.Width, config.Height, err)
		}
	}
	for name, dump := range map[string][]byte{"nothing": nil, "half a PNG": asPNG.Bytes()[:1000], "text": []byte("hello"), "flood": bytes.Repeat([]byte{0xff}, 1<<20),
		"10 MiB of digits": append([]byte("P6\n"), bytes.Repeat([]byte("9"), 10<<20)...), "magic only": []byte("\x89PNG"),
		"wide PNG": grey(t, maxSide+1, 1), "large PNG": grey(t, maxSide, maxSide),
	} {
		if _, err := toPNG(dump); err == nil {
			t.Errorf("%s became a PNG", name)
		}
	}
}

// Odd sides lose nothing but every second pixel.
func TestHalf(t *testing.T) {
	large, err := parsePPM(ppm(5, 3))
	if err != nil {
		t.Fatal(err)
	}
	small := half(large)
	if small.Rect != image.Rect(0, 0, 3, 2) {
		t.Fatalf("%v", small.Rect)
	}
	for y := range 2 {
		for x := range 3 {
			if got, want := small.At(x, y), large.At(2*x, 2*y); got != want {
				t.Errorf("pixel %d, %d is %v, want %v", x, y, got, want)
			}
		}
	}
}

func FuzzToPNG(f *testing.F) {
	f.Add(ppm(2, 2))
	f.Add([]byte("P6\n8192 8192\n255\n"))
	if shot, err := toPNG(ppm(4, 4)); err == nil {
		f.Add(shot)
	}
	f.Fuzz(func(t *testing.T, dump []byte) {
		shot, err := toPNG(dump)
		if err != nil {
			return
		}
		if _, err := png.Decode(bytes.NewReader(shot)); err != nil || len(shot) > maxPNG {
			t.Errorf("%d bytes, %v", len(shot), err)
		}
	})
}
