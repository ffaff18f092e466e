// The calls of one handleOps, without looking at single steps: run by the node, it costs a small part of tracer.js. What a stranger's
// contract may make large (inputs, answers) is cut here, so that the answer grows with the number of calls only.
{
  calls: [],
  open: [-1],

  enter: function (call) {
    var value = call.getValue(), input = call.getInput(), parent = this.open[this.open.length - 1];
    this.open.push(this.calls.length);
    this.calls.push([
      parent, call.getType(), toHex(call.getFrom()), toHex(call.getTo()), value === undefined ? "0" : value.toString(16),
      toHex(input.slice(0, 36)), input.length, "", "0x",
    ]);
  },

  exit: function (result) {
    var call = this.calls[this.open.pop()], output = result.getOutput();
    call[7] = result.getError() || "";
    if (call[0] === -1 && output) call[8] = toHex(output.slice(0, 65536));
  },

  fault: function (log, db) {},

  result: function (context, db) {
    return {
      calls: this.calls,
      error: context.error === undefined ? "" : String(context.error),
      output: context.output === undefined ? "0x" : toHex(context.output),
    };
  },
}
