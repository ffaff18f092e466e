// What a bundle used and paid, in callTracer's form: its root, and of the entry point's own calls the last, which pays the beneficiary.
// callTracer's own answer is as large as a stranger makes it: a few thousand calls with long inputs are hundreds of megabytes.
{
  depth: 0,
  last: null,

  enter: function (call) {
    this.depth += 1;
    if (this.depth === 1) {
      var value = call.getValue();
      this.last = { to: toHex(call.getTo()), value: "0x" + (value === undefined ? "0" : value.toString(16)) };
    }
  },

  exit: function (result) {
    this.depth -= 1;
  },

  fault: function (log, db) {},

  result: function (context, db) {
    return {
      gasUsed: "0x" + context.gasUsed.toString(16),
      error: context.error === undefined ? "" : String(context.error),
      output: context.output === undefined ? "0x" : toHex(context.output),
      calls: this.last === null ? [] : [this.last],
    };
  },
}
