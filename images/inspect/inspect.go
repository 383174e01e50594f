// Package inspect decides from a disk file's own headers and tables what it is and whether it may be converted, before any
// tool of QEMU sees it.
//
// Here: reading qcow2, VMDK and VHDX strictly, and knowing by their marks what is none of them. Pure: it reads bytes within
// bounds, opens nothing and runs nothing. Not here: conversion (images/convert), cutting into chunks (images/pack). pack,
// convert, cmd and tests call it.
//
// What is not understood is refused. A format's reader may rely on what this package lets through: one file, no name of
// another in it, every table inside it.
package inspect

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"daybreak/images"
)

// ErrRefused: the file is no disk that a golden image can be made of. The message says why and what to do.
var ErrRefused = errors.New("not taken as a golden image")

// Format is a disk format by QEMU's name for it.
type Format string

// The formats that are taken. Others are reported by their name, too, and refused.
const (
	Raw   Format = "raw"
	QCOW2 Format = "qcow2"
	VMDK  Format = "vmdk"
	VHDX  Format = "vhdx"
)

// Code is a reason for refusal, for scripts. Codes never change their meaning.
type Code string

// The reasons.
const (
	BackingFile       Code = "backing-file"       // names a file under it
	DataFile          Code = "data-file"          // keeps its data in another file
	NamesFiles        Code = "names-files"        // a descriptor that names the files that hold the data
	Parent            Code = "parent"             // a differencing disk
	Encrypted         Code = "encrypted"          //
	Snapshots         Code = "snapshots"          // holds internal snapshots
	Bitmaps           Code = "bitmaps"            // holds dirty bitmaps
	ExtendedL2        Code = "extended-l2"        //
	UnknownFeature    Code = "unknown-feature"    // something that this release does not know
	Version           Code = "version"            // of the format
	Dirty             Code = "dirty"              // was not closed
	Corrupt           Code = "corrupt"            // says so itself, or contradicts itself
	LogNotEmpty       Code = "log-not-empty"      // changes wait to be written
	Checksum          Code = "checksum"           // does not match
	TwoFormats        Code = "two-formats"        // can be read as two things
	Truncated         Code = "truncated"          // shorter than it says
	Size              Code = "size"               // of the disk: none, odd or too large
	SectorSize        Code = "sector-size"        // guests could not boot from it
	Layout            Code = "layout"             // clusters, grains or tables of a size that is not taken
	OffsetOutside     Code = "offset-outside"     // a table outside the file
	Unaligned         Code = "unaligned"          // a table in no possible place
	Overlap           Code = "overlap"            // tables that lie on each other
	UnsupportedFormat Code = "unsupported-format" // a disk of another kind
	Packed            Code = "packed"             // an archive or a compressed file
)

// Problem is one reason for refusal.
type Problem struct {
	Code Code `json:"code"`
	// Text is a sentence that says what is wrong and what to do.
	Text string `json:"text"`
}

// Report is what a file is.
type Report struct {
	Format Format `json:"format"`
	// Variant within the format, such as "streamOptimized"; may be empty.
	Variant string `json:"variant,omitempty"`
	// VirtualSize is the guest's disk in bytes, as the file says it.
	VirtualSize uint64 `json:"virtualSize"`
	// DataBytes bounds the bytes of it that are not a hole. Counted only when there is no problem.
	DataBytes uint64 `json:"dataBytes"`
	// Problems is empty when the file is taken.
	Problems []Problem `json:"problems"`
}

// Taken says whether a golden image may be made of the file.
func (r Report) Taken() bool { return len(r.Problems) == 0 }

// Err is nil for a file that is taken, otherwise an error that wraps ErrRefused and tells all the problems.
func (r Report) Err() error {
	if r.Taken() {
		return nil
	}
	texts := make([]string, len(r.Problems))
	for i, p := range r.Problems {
		texts[i] = fmt.Sprintf("%s (%s)", p.Text, p.Code)
	}
	return fmt.Errorf("%s: %w", strings.Join(texts, "; "), ErrRefused)
}

// Inspect reads the headers and tables of a file of so many bytes. An error means that the file could not be read or is
// shorter than size; whatever its content is, that is in the report. It holds at most some MiB, and reads at most a small
// multiple of what the tables of the file take.
func Inspect(r io.ReaderAt, size int64) (Report, error) {
	d := &disk{r: r, size: uint64(max(size, 0)), report: Report{Problems: []Problem{}}}
	found, err := d.marks()
	if err != nil {
		return d.report, err
	}
	if len(found) == 0 {
		d.report.Format = Raw
		d.report.VirtualSize, d.report.DataBytes = d.size, d.size
		d.checkSize()
		return d.report, nil
	}
	first := found[0]
	d.report.Format = first.format
	for _, other := range found[1:] {
		d.refuse(TwoFormats, "it can be read as %s and as %s: make it anew with a tool that you trust", first.name, other.name)
	}
	if !d.report.Taken() {
		return d.report, nil
	}
	switch {
	case first.remedy != "":
		d.refuse(first.code(), "it is %s: %s", first.name, first.remedy)
	case first.format == QCOW2:
		err = d.qcow2()
	case first.format == VMDK:
		err = d.vmdk()
	case first.format == VHDX:
		err = d.vhdx()
	}
	return d.report, err
}

// disk is a file under inspection.
type disk struct {
	r      io.ReaderAt
	size   uint64
	report Report
}

// maxProblems bounds a report.
const maxProblems = 16

func (d *disk) refuse(code Code, format string, args ...any) {
	if len(d.report.Problems) < maxProblems {
		d.report.Problems = append(d.report.Problems, Problem{Code: code, Text: fmt.Sprintf(format, args...)})
	}
}

// read reads exactly n bytes. Callers have checked that they lie within the file and bound n.
func (d *disk) read(offset uint64, n int) ([]byte, error) {
	data := make([]byte, n)
	if !d.within(offset, uint64(n)) {
		return nil, fmt.Errorf("read %d bytes at %d: %w", n, offset, io.ErrUnexpectedEOF)
	}
	if got, err := d.r.ReadAt(data, int64(offset)); got < n {
		if err == nil || errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("read %d bytes at %d: %w", n, offset, err)
	}
	return data, nil
}

// within says whether n bytes at an offset lie in the file.
func (d *disk) within(offset, n uint64) bool {
	return n <= d.size && offset <= d.size-n
}

func (d *disk) checkSize() {
	if err := images.CheckSize(d.report.VirtualSize); err != nil {
		d.refuse(Size, "%v: give the disk a size that a golden image may have, then import it again", err)
	}
}

// truncated is the refusal of a file that ends too early.
func (d *disk) truncated(what string) {
	d.refuse(Truncated, "the file ends before %s does: it was cut off, copy it again", what)
}

func ceil(a, b uint64) uint64 { return a/b + min(a%b, 1) }

func powerOfTwo(n uint64) bool { return n != 0 && n&(n-1) == 0 }
