package libvirt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/draw"
	"image/png"
	"io"
	"strconv"

	lv "libvirt.org/go/libvirt"

	"daybreak/hostagent"
)

const (
	// maxSide bounds a screen, pixels: two 4K displays side by side.
	maxSide = 8192
	// maxRaw bounds what libvirt may send for a screen: 5120 × 2880 in 24 bits, and its header.
	maxRaw = 5120*2880*3 + 64
	// maxPNG is the contract's limit.
	maxPNG = 3 << 20
)

// Screenshot returns the screen as PNG, at most 3 MiB. A screen that does not fit is halved until it does.
func (h *Host) Screenshot(ctx context.Context, life hostagent.Life) ([]byte, error) {
	if err := checkLife(life); err != nil {
		return nil, fmt.Errorf("take screenshot: %w", err)
	}
	what := "take screenshot of " + life.Desktop
	dump := make(chan []byte, 1)
	err := h.guests.do(ctx, h.cfg.GuestTimeout, "screen "+life.UID, what, func(c *lv.Connect) error {
		data, err := screendump(c, life)
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		dump <- data
		return nil
	})
	if err != nil {
		return nil, err
	}
	shot, err := toPNG(<-dump)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return shot, nil
}

// screendump reads the first screen as QEMU writes it: PPM, or PNG where libvirt asks for that.
func screendump(c *lv.Connect, life hostagent.Life) (_ []byte, err error) {
	d, err := find(c, life)
	if err != nil {
		return nil, err
	}
	defer free(d)
	stream, err := c.NewStream(0)
	if err != nil {
		return nil, err
	}
	defer stream.Free() //nolint:errcheck // drops a reference
	if _, err := d.Screenshot(stream, 0, 0); err != nil {
		return nil, err
	}
	var data []byte
	buf := make([]byte, 256<<10)
	for {
		n, err := stream.Recv(buf)
		if errors.Is(err, io.EOF) {
			return data, stream.Finish()
		}
		if err != nil {
			return nil, err
		}
		if len(data)+n > maxRaw {
			return nil, errors.Join(fmt.Errorf("the screen has more than %d bytes", maxRaw), stream.Abort())
		}
		data = append(data, buf[:n]...)
	}
}

// toPNG makes a PNG that fits. One that is a PNG already is made anew too: what is handed on is pixels, nothing else.
func toPNG(dump []byte) ([]byte, error) {
	parse := parsePPM
	if bytes.HasPrefix(dump, []byte("\x89PNG")) {
		parse = parsePNG
	}
	screen, err := parse(dump)
	if err != nil {
		return nil, fmt.Errorf("read screen: %w", err)
	}
	for {
		var out bytes.Buffer
		if err := (&png.Encoder{CompressionLevel: png.BestSpeed}).Encode(&out, screen); err != nil {
			return nil, fmt.Errorf("write PNG: %w", err)
		}
		if out.Len() <= maxPNG {
			return out.Bytes(), nil
		}
		screen = half(screen)
	}
}

// half takes every second pixel of every second row.
func half(large *image.RGBA) *image.RGBA {
	small := image.NewRGBA(image.Rect(0, 0, (large.Rect.Dx()+1)/2, (large.Rect.Dy()+1)/2))
	for y := range small.Rect.Dy() {
		from, to := large.Pix[2*y*large.Stride:], small.Pix[y*small.Stride:]
		for x := range small.Rect.Dx() {
			copy(to[4*x:4*x+4], from[8*x:])
		}
	}
	return small
}

// parsePPM reads a binary portable pixmap exactly as QEMU writes it: no comments, one space or line end between the parts,
// 255 levels, and nothing behind the pixels.
func parsePPM(data []byte) (*image.RGBA, error) {
	rest, ok := bytes.CutPrefix(data, []byte("P6\n"))
	if !ok {
		return nil, errors.New("neither PPM nor PNG")
	}
	w, rest, err := number(rest, ' ')
	if err != nil {
		return nil, err
	}
	h, rest, err := number(rest, '\n')
	if err != nil {
		return nil, err
	}
	levels, rest, err := number(rest, '\n')
	if err != nil {
		return nil, err
	}
	if w < 1 || h < 1 || levels != 255 || len(rest) != 3*w*h {
		return nil, fmt.Errorf("%d bytes of pixels for %d × %d in %d levels", len(rest), w, h, levels)
	}
	screen := image.NewRGBA(image.Rect(0, 0, w, h))
	for i := range w * h {
		pixel := screen.Pix[4*i : 4*i+4]
		copy(pixel, rest[3*i:3*i+3])
		pixel[3] = 0xff
	}
	return screen, nil
}

// number reads digits up to an end mark. No number in a screen's header is larger than maxSide.
func number(data []byte, end byte) (int, []byte, error) {
	digits, _, ok := bytes.Cut(data[:min(len(data), 6)], []byte{end})
	n, err := strconv.ParseUint(string(digits), 10, 16)
	if !ok || err != nil || n > maxSide || strconv.FormatUint(n, 10) != string(digits) {
		return 0, nil, fmt.Errorf("bad header at %.8q", data)
	}
	return int(n), data[len(digits)+1:], nil
}

// parsePNG decodes a PNG that is not too large in either way.
func parsePNG(data []byte) (*image.RGBA, error) {
	config, err := png.DecodeConfig(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	if config.Width < 1 || config.Height < 1 || config.Width > maxSide || config.Height > maxSide || config.Width*config.Height*3 > maxRaw {
		return nil, fmt.Errorf("%d × %d is too large", config.Width, config.Height)
	}
	decoded, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	screen := image.NewRGBA(image.Rect(0, 0, config.Width, config.Height))
	draw.Draw(screen, screen.Rect, decoded, decoded.Bounds().Min, draw.Src)
	return screen, nil
}
