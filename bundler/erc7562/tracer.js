// What validation does, as ERC-7562 asks: run by the node (geth's and anvil's JavaScript tracer interface), once for each handleOps call.
// It only collects; every rule is judged in Python. It looks at nothing after the entry point's BeforeExecution event.
{
  frames: [],
  open: [0],
  keccaks: {},
  sizes: {},
  executing: false,
  entryPoint: "",
  outputLimit: 65536,

  setup: function (config) {
    this.entryPoint = config.entryPoint;
    this.beforeExecution = config.beforeExecution;
    this.frames.push(this.frame(-1, "CALL", "", this.entryPoint, 0, "0x", 0));
  },

  frame: function (parent, type, from, to, value, input, gas) {
    return {
      parent: parent, type: type, from: from, to: to, value: "0x" + value.toString(16), input: input, gas: gas,
      error: "", output: "0x", used: 0, ops: {}, slots: {}, uses: [], last: -1, pc: -1, delegated: false,
    };
  },

  // Length of an address's code now; what is an EIP-7702 delegation is told by its 23 bytes.
  codeOf: function (db, address, bytes) {
    var known = this.sizes[address];
    if (known !== undefined && known[0] > 0) return known;
    var code = db.getCode(bytes);
    var found = [code.length, code.length === 23 && code[0] === 0xef && code[1] === 1 && code[2] === 0 ? toHex(code) : ""];
    this.sizes[address] = found;
    return found;
  },

  enter: function (call) {
    if (this.executing) {
      this.open.push(-1);
      return;
    }
    var value = call.getValue();
    var input = call.getInput();
    var parent = this.open[this.open.length - 1];
    var type = call.getType();
    var creates = type === "CREATE" || type === "CREATE2";
    // Only the entry point's own calls are read in full; of deeper ones the selector and one argument are enough.
    var data = creates ? "0x" : toHex(parent === 0 ? input : input.slice(0, 36));
    this.open.push(this.frames.length);
    this.frames.push(
      this.frame(parent, type, toHex(call.getFrom()), toHex(call.getTo()), value === undefined ? 0 : value, data, call.getGas())
    );
  },

  exit: function (result) {
    var index = this.open.pop();
    if (index < 0) return;
    var frame = this.frames[index];
    frame.error = result.getError() || "";
    frame.used = result.getGasUsed();
    var output = result.getOutput();
    if (frame.parent === 0 && output) frame.output = toHex(output.slice(0, this.outputLimit));
  },

  fault: function (log, db) {
    var frame = this.frames[this.open[this.open.length - 1]];
    if (frame !== undefined && !frame.error) frame.error = String(log.getError());
  },

  step: function (log, db) {
    if (this.executing) return;
    var index = this.open[this.open.length - 1];
    var frame = this.frames[index];
    var op = log.op.toNumber();
    if (frame.to === this.entryPoint) {
      if (index === 0 && op === 0xa1 && log.stack.peek(2).toString(16) === this.beforeExecution) this.executing = true;
      return; // the entry point's own code is trusted
    }
    if (frame.last === -1) frame.delegated = this.codeOf(db, frame.to, toAddress(frame.to))[1] !== "";
    // [OP-012]: GAS is named only when no *CALL follows at once.
    if (frame.last === 0x5a && op !== 0xf1 && op !== 0xf2 && op !== 0xf4 && op !== 0xfa) frame.ops[0x5a] = true;
    // [OP-051]: EXTCODESIZE ISZERO asks only whether there is code.
    if (frame.last === 0x3b && op === 0x15) frame.uses[frame.uses.length - 1].isZero = true;
    frame.last = op;
    frame.pc = log.getPC();
    if (op !== 0x5a) frame.ops[op] = true;

    if (op === 0x54 || op === 0x55 || op === 0x5c || op === 0x5d) {
      var slot = log.stack.peek(0).toString(16);
      var bit = op === 0x54 ? 1 : op === 0x55 ? 2 : op === 0x5c ? 4 : 8;
      frame.slots[slot] = (frame.slots[slot] || 0) | bit;
    } else if (op === 0x20) {
      // keccak(A || x), x a word: what associates a slot with the address A.
      if (log.stack.peek(1).toString(16) === "40") {
        var offset = parseInt(log.stack.peek(0).toString(16), 16);
        // memory may not reach that far yet; what is not there is zero
        var end = Math.min(offset + 64, log.memory.length());
        var preimage = end > offset ? toHex(log.memory.slice(offset, end)).slice(2) : "";
        while (preimage.length < 128) preimage += "00";
        if (preimage.slice(0, 24) === "000000000000000000000000") this.keccaks[preimage] = true;
      }
    } else if (op === 0xf1 || op === 0xf2 || op === 0xf4 || op === 0xfa || op === 0x3b || op === 0x3c || op === 0x3f) {
      var word = log.stack.peek(op >= 0xf1 ? 1 : 0).toString(16);
      var bytes = toAddress("0x" + ("0000000000000000000000000000000000000000" + word).slice(-40));
      var address = toHex(bytes);
      var code = this.codeOf(db, address, bytes);
      var value = op === 0xf1 || op === 0xf2 ? log.stack.peek(2).toString(16) : "0";
      var use = { op: op, address: address, size: code[0], delegation: code[1], value: value, isZero: false, input: "", length: 0 };
      if (address === this.entryPoint && op === 0xf1) {
        var at = parseInt(log.stack.peek(3).toString(16), 16);
        use.length = parseInt(log.stack.peek(4).toString(16), 16);
        var most = Math.min(at + Math.min(use.length, 36), log.memory.length());
        use.input = most > at ? toHex(log.memory.slice(at, most)) : "0x";
      }
      frame.uses.push(use);
    }
  },

  result: function (context, db) {
    return {
      frames: this.frames,
      keccaks: Object.keys(this.keccaks),
      error: context.error === undefined ? "" : String(context.error),
      output: context.output === undefined ? "0x" : toHex(context.output),
    };
  },
}
