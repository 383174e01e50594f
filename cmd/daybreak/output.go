package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"daybreak/cmd/daybreak/show"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
	"daybreak/proto/rules"
)

// The output formats.
const (
	formatTable = "table"
	formatWide  = "wide"
	formatJSON  = "json"
	formatYAML  = "yaml"
)

// formatFlag adds -o. The first format is the default; "" stands for the command's own words.
func formatFlag(c *cobra.Command, format *string, formats ...string) {
	named := slices.DeleteFunc(slices.Clone(formats), func(f string) bool { return f == "" })
	c.Flags().StringVarP(format, "output", "o", formats[0], "output: "+strings.Join(named, ", "))
	_ = c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(named, cobra.ShellCompDirectiveNoFileComp))
	check := c.PreRunE
	c.PreRunE = func(c *cobra.Command, args []string) error {
		if !slices.Contains(formats, *format) {
			return wrongUsage("there is no output format %q; want one of %s", *format, strings.Join(named, ", "))
		}
		if check != nil {
			return check(c, args)
		}
		return nil
	}
}

// toJSON is a message as protojson on one line. Protojson itself varies its white space from build to build.
func toJSON(m proto.Message) ([]byte, error) {
	loose, err := protojson.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("write JSON: %w", err)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, loose); err != nil {
		return nil, fmt.Errorf("write JSON: %w", err)
	}
	return compact.Bytes(), nil
}

// printJSON prints a message as indented JSON.
func printJSON(out io.Writer, m proto.Message) error {
	text, err := toJSON(m)
	if err != nil {
		return err
	}
	return printIndented(out, text)
}

func printIndented(out io.Writer, text []byte) error {
	var indented bytes.Buffer
	if err := json.Indent(&indented, text, "", "  "); err != nil {
		return fmt.Errorf("write JSON: %w", err)
	}
	indented.WriteByte('\n')
	_, err := indented.WriteTo(out)
	return err
}

// printItems prints objects as {"items": [...]}.
func printItems(out io.Writer, objects []store.Object) error {
	text := []byte(`{"items":[`)
	for i, o := range objects {
		if i > 0 {
			text = append(text, ',')
		}
		item, err := toJSON(o)
		if err != nil {
			return err
		}
		text = append(text, item...)
	}
	return printIndented(out, append(text, "]}"...))
}

// printYAML prints objects as documents that apply takes.
func printYAML(out io.Writer, objects ...store.Object) error {
	encoder := yaml.NewEncoder(out)
	encoder.SetIndent(2)
	for _, o := range objects {
		text, err := toJSON(o)
		if err != nil {
			return err
		}
		var document yaml.Node
		if err := yaml.Unmarshal(text, &document); err != nil {
			return fmt.Errorf("write YAML: %w", err)
		}
		node := document.Content[0]
		asInFiles(node, o.ProtoReflect().Descriptor())
		unstyled(node)
		node.Content = append([]*yaml.Node{
			{Kind: yaml.ScalarNode, Tag: "!!str", Value: "kind"},
			{Kind: yaml.ScalarNode, Tag: "!!str", Value: store.KindName(store.KindOf(o))},
		}, node.Content...)
		if err := encoder.Encode(node); err != nil {
			return fmt.Errorf("write YAML: %w", err)
		}
	}
	return encoder.Close()
}

// asInFiles writes the enums of a message as files have them (monday), which protojson does not: who reads one spelling and
// writes another looks twice. JSON, which programs read, keeps protojson's.
func asInFiles(node *yaml.Node, message protoreflect.MessageDescriptor) {
	for i := 0; i+1 < len(node.Content); i += 2 {
		field, value := message.Fields().ByJSONName(node.Content[i].Value), node.Content[i+1]
		if field == nil || field.IsMap() { // what is written as a scalar has no fields, maps are of texts
			continue
		}
		each := []*yaml.Node{value}
		if field.IsList() {
			each = value.Content
		}
		for _, one := range each {
			switch {
			case field.Enum() != nil && one.ShortTag() == "!!str": // a number is one that is not known here
				one.Value = rules.EnumName(field.Enum(), protoreflect.Name(one.Value))
			case field.Message() != nil:
				asInFiles(one, field.Message())
			}
		}
	}
}

// unstyled turns JSON's style into YAML's own.
func unstyled(node *yaml.Node) {
	node.Style = 0
	for _, child := range node.Content {
		unstyled(child)
	}
}

// printObjects prints what "get" found. one: a single object was asked for.
func (a *app) printObjects(kind v1.Kind, objects []store.Object, format string, one bool) error {
	switch format {
	case formatJSON:
		if one {
			return printJSON(a.out, objects[0])
		}
		return printItems(a.out, objects)
	case formatYAML:
		return printYAML(a.out, objects...)
	}
	return show.NewWriter(a.out).Table(show.Objects(kind, objects, format == formatWide, time.Now()))
}
