class Migrans: pass
class MigransError(Exception): pass
