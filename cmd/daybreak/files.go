package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"daybreak/cmd/daybreak/objectfile"
	"daybreak/orchestrator/calendar"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// maxFiles bounds how many files one command reads.
const maxFiles = 1000

// fileFlag adds -f.
func fileFlag(c *cobra.Command, files *[]string) {
	c.Flags().StringArrayVarP(files, "file", "f", nil, "file or directory of YAML or JSON objects, - for standard input; may be given more than once")
	_ = c.MarkFlagFilename("file", "yaml", "yml", "json")
}

// read reads all objects of the files, sorted so that what others refer to comes first. Nothing is sent before all of
// them are read and found to be right.
func (a *app) read(paths []string) ([]*objectfile.Document, error) {
	var files []string
	for _, path := range paths {
		found, err := expand(path)
		if err != nil {
			return nil, err
		}
		files = append(files, found...)
	}
	if len(files) > maxFiles {
		return nil, fmt.Errorf("%d files are too many at once; at most %d", len(files), maxFiles)
	}
	var documents []*objectfile.Document
	var mistakes objectfile.Mistakes
	for _, file := range files {
		text, err := a.readFile(file)
		if err != nil {
			return nil, err
		}
		found, err := objectfile.Parse(displayName(file), text)
		var wrong objectfile.Mistakes
		if errors.As(err, &wrong) {
			mistakes = append(mistakes, wrong...)
		} else if err != nil {
			return nil, err
		}
		documents = append(documents, found...)
	}
	if mistakes = append(mistakes, twice(documents)...); len(mistakes) > 0 {
		return nil, mistakes
	}
	generation := generations(documents)
	slices.SortStableFunc(documents, func(x, y *objectfile.Document) int {
		return cmp.Or(order(x.Kind())-order(y.Kind()), generation[x]-generation[y])
	})
	return documents, nil
}

// expand returns a file as itself and a directory as the files in it.
func expand(path string) ([]string, error) {
	if path == "-" {
		return []string{path}, nil
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: there is no such file or directory", path)
	}
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, entry := range entries {
		switch strings.ToLower(filepath.Ext(entry.Name())) {
		case ".yaml", ".yml", ".json":
			files = append(files, filepath.Join(path, entry.Name()))
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%s: there is no .yaml, .yml or .json file in this directory", path)
	}
	return files, nil
}

// readFile reads at most one byte more than a file may have, so that the reader can tell.
func (a *app) readFile(path string) ([]byte, error) {
	in := a.in
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		in = file
	}
	text, err := io.ReadAll(io.LimitReader(in, objectfile.MaxBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", displayName(path), err)
	}
	return text, nil
}

func displayName(path string) string {
	if path == "-" {
		return "standard input"
	}
	return path
}

// twice finds objects that were given more than once.
func twice(documents []*objectfile.Document) (mistakes objectfile.Mistakes) {
	seen := map[store.Ref]*objectfile.Document{}
	for _, d := range documents {
		ref := store.RefOf(d.Object)
		if first, again := seen[ref]; again {
			mistakes = append(mistakes, objectfile.Mistake{
				Place: d.At("meta.name"), Field: "meta.name",
				Text: fmt.Sprintf("%s %q is in %s already", word(ref.Kind), ref.Name, first.At("meta.name")),
			})
			continue
		}
		seen[ref] = d
	}
	return mistakes
}

// generations counts the ancestors that a calendar has among the documents: a parent is applied before its heirs.
func generations(documents []*objectfile.Document) map[*objectfile.Document]int {
	parents := map[string]string{}
	for _, d := range documents {
		if c, ok := d.Object.(*v1.Calendar); ok {
			parents[c.GetMeta().GetName()] = c.GetSpec().GetParent()
		}
	}
	count := map[*objectfile.Document]int{}
	for _, d := range documents {
		c, ok := d.Object.(*v1.Calendar)
		if !ok {
			continue
		}
		for parent := c.GetSpec().GetParent(); parent != "" && count[d] <= calendar.MaxDepth; parent = parents[parent] {
			count[d]++
		}
	}
	return count
}

// order says which kinds are applied first: those that others name.
func order(kind v1.Kind) int {
	return slices.Index([]v1.Kind{v1.Kind_KIND_ZONE, v1.Kind_KIND_CALENDAR, v1.Kind_KIND_IMAGE, v1.Kind_KIND_HOST, v1.Kind_KIND_POOL}, kind)
}
